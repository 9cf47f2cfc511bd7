"""A detector learns through the project's own training, resumes to the bit, and is judged without regard to batches.

`make test` trains for four epochs, after which the loss is lower; `make test-exhaustive` trains until boxes are found.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cxr.data.boxes import AnnotatedImage, BoxAnnotations
from cxr.errors import DataError, MissingInputError, ParameterError
from cxr.models.metadata import ModelMetadata
from cxr.regions.detection_task import DetectionLossSettings, DetectionTask
from cxr.regions.overlap import intersection_over_union
from cxr.regions.predictor import RegionPredictor
from cxr.training.prepared_input import PreparedInputNetwork
from cxr.training.trained_model import TrainedModel
from support.drawn_rectangles import HEIGHT, RECIPE, WIDTH, draw_rectangles, region_settings
from support.kept_checkpoints import keep_checkpoint
from support.short_backbone import short_lite0

EVERYTHING = {
    "epochs": 4, "phantom_epochs": 4, "optimizer": "adamw", "weight_decay": 0.01, "schedule": "cosine",
    "warmup_epochs": 1.0, "average_decay": 0.8, "augmentation": {"horizontal_flip": True, "shift": 0.03}, "seed": 1,
}  # fmt: skip
WITHOUT_AVERAGE = {**EVERYTHING, "average_decay": 0.0}
"""TensorFlow takes as long to trace the average of all weights as half of the network."""
LONG = {**EVERYTHING, "epochs": 20, "phantom_epochs": 20}
"""Enough epochs for finding the rectangles."""
LOW_SCORE = 0.15


@pytest.fixture(scope="module")
def drawn():
    with short_lite0():
        yield draw_rectangles()


@pytest.fixture(scope="module")
def training(drawn, tmp_path_factory):
    """A session and the result of its training."""
    session = drawn.session(tmp_path_factory.mktemp("training"), **WITHOUT_AVERAGE)
    return session, session.train()


@pytest.fixture(scope="module")
def long_training(drawn, tmp_path_factory):
    session = drawn.session(tmp_path_factory.mktemp("long"), **LONG)
    return session, session.train()


def write_detector(folder, drawn, session, result):
    model = TrainedModel(session.network, result, {}, RECIPE, drawn.data, session.device, {}, None)
    model.write(folder, "rectangles", "own", 1, mirrored=False, detector=session.detector)


@pytest.fixture(scope="module")
def trained(drawn, training, tmp_path_factory):
    """Folder of the trained detector."""
    folder = tmp_path_factory.mktemp("trained")
    write_detector(folder, drawn, *training)
    return folder


@pytest.mark.exhaustive
def test_a_detector_learns_where_rectangles_are(long_training):
    _, result = long_training
    assert result.best > 0.3, [row["val_mean_average_precision"] for row in result.history]
    assert result.history[result.best_epoch - 1]["val_loss"] < 0.5 * result.history[0]["val_loss"]


def test_each_epoch_lowers_the_loss_and_says_its_parts_and_the_precision(training):
    _, result = training
    assert result.best == max(row["val_mean_average_precision"] for row in result.history)
    assert result.history[result.best_epoch - 1]["val_mean_average_precision"] == result.best
    losses = [row["loss"] for row in result.history]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.8 * losses[0]
    for row in result.history:
        parts = ("loss", "class_loss", "box_loss", "image_loss")
        assert all(np.isfinite(row[name]) and np.isfinite(row[f"val_{name}"]) for name in parts)
        assert row["loss"] == pytest.approx(row["class_loss"] + row["box_loss"] + row["image_loss"], rel=1e-4)


@pytest.mark.exhaustive  # test_training_recipe.py resumes and averages a classifier in the same loop
def test_a_killed_training_resumes_with_the_same_weights(drawn, tmp_path):
    whole = drawn.session(tmp_path / "whole", **EVERYTHING)
    expected = whole.train(run_id="run", on_epoch=keep_checkpoint(tmp_path / "whole", tmp_path / "killed", 2))
    resumed = drawn.session(tmp_path / "killed", **EVERYTHING)
    assert resumed.run_id == "run"
    epochs = []
    result = resumed.train(on_epoch=lambda row: epochs.append(row["epoch"]))
    assert epochs == [3, 4]
    for row, expected_row in zip(result.history, expected.history, strict=True):
        for key in row.keys() - {"seconds", "ended"}:
            np.testing.assert_equal(row[key], expected_row[key], err_msg=key)
    for weights, expected_weights in zip(resumed.network.get_weights(), whole.network.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, expected_weights)


def test_only_the_cpu_blurs_so_images_that_must_lie_on_the_device_are_not_blurred(drawn, tmp_path):
    with pytest.raises(ParameterError, match=r"without blur.*on_device=always.*set on_device: auto"):
        drawn.session(tmp_path, augmentation={"blur": 1.0}, on_device="always")


def test_a_training_with_other_boxes_or_settings_does_not_resume(drawn, tmp_path):
    digest = drawn.session(tmp_path, **EVERYTHING).fingerprint()
    assert drawn.session(tmp_path, **EVERYTHING).fingerprint() == digest
    first = next(iter(drawn.annotations.images))
    another_box = AnnotatedImage(np.array([[0, 0, 30, 30]], np.float32), None, None)
    moved = BoxAnnotations({**drawn.annotations.images, first: another_box})
    assert replace(drawn, annotations=moved).session(tmp_path, **EVERYTHING).fingerprint() != digest
    assert drawn.session(tmp_path, **{**EVERYTHING, "max_overlap": 0.4}).fingerprint() != digest


def test_phantoms_have_their_own_number_of_epochs():
    settings = region_settings(epochs=20, phantom_epochs=3)
    assert settings.plan(phantom=True).epochs == 3
    assert settings.plan(phantom=False).epochs == 20


def test_validation_does_not_depend_on_the_size_of_a_batch(drawn, training, tmp_path):
    session, _ = training
    losses = DetectionLossSettings(0.25, 2.0, 2.0, 0.5)
    on_planes = PreparedInputNetwork(session.network, RECIPE)
    rows = []
    for batch_size in (1, 5):  # with one image there are batches without any box
        validation = drawn.session(tmp_path, batch_size=batch_size).validation
        rows.append(DetectionTask(validation, losses, session.detector).validation_metrics(on_planes))
    assert rows[1] == pytest.approx(rows[0], rel=1e-4)
    parts = rows[0]["class_loss"] + 2 * rows[0]["box_loss"] + 0.5 * rows[0]["image_loss"]
    assert rows[0]["loss"] == pytest.approx(parts)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_boxes_is_refused_before_training(drawn, split, tmp_path):
    frame = drawn.data.frame
    empty = AnnotatedImage(np.empty((0, 4), np.float32), None, None)
    without = set(frame["path"][frame["split"] == split])
    images = {path: empty if path in without else image for path, image in drawn.annotations.images.items()}
    with pytest.raises(DataError, match=f"boxes in {split}, received none"):
        replace(drawn, annotations=BoxAnnotations(images)).session(tmp_path)


def test_an_image_that_is_not_annotated_is_refused(drawn, tmp_path):
    first, *others = drawn.annotations.images
    images = {path: drawn.annotations.images[path] for path in others}
    with pytest.raises(DataError, match=first):
        replace(drawn, annotations=BoxAnnotations(images)).session(tmp_path)


def test_the_card_says_what_the_detector_is(trained, drawn, training):
    values = json.loads((trained / "card.json").read_text())
    assert values["detector"]["backbone"] == "efficientnet_lite0"
    assert values["detector"]["box_scale"] is None and values["threshold"] is None
    metadata = ModelMetadata.read(trained)
    assert metadata.detector == training[0].detector
    assert metadata.recipe == RECIPE.to_dict()
    assert (metadata.data_digest, metadata.split_digest) == (drawn.data.data_digest, drawn.data.digest)
    assert metadata.training["device"]["backend"] == training[0].device["backend"]


@pytest.mark.exhaustive  # tests/steps/test_predict_regions.py draws boxes of a small detector in pixels of the original
def test_a_loaded_detector_draws_boxes_in_pixels_of_the_original(long_training, drawn, tmp_path):
    trained = tmp_path / "trained"
    trained.mkdir()
    write_detector(trained, drawn, *long_training)
    paths = drawn.data.images_of("validation")[0]
    metadata = ModelMetadata.read(trained).with_box_choice(LOW_SCORE, 1.0, "rule")
    predictor = RegionPredictor.load(trained, metadata)
    sizes = drawn.manifest[drawn.manifest["path"].isin(paths)]
    proposed = predictor.propose_in_originals(drawn.prepared, sizes, batch_size=5)
    counted = proposed[proposed["score"] >= LOW_SCORE]
    hits = []
    for path in paths:
        boxes = drawn.annotations.images[path].boxes
        rows = counted[counted["path"] == path][["x", "y", "width", "height"]].to_numpy()
        corners = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:]])
        if len(boxes):
            overlap = intersection_over_union(boxes, corners)
            hits += (overlap.max(axis=1, initial=0) > 0.5).tolist()
    assert np.mean(hits) > 0.6, hits
    originals = {
        path: np.repeat(drawn.prepared.images[drawn.prepared.rows([path])[0], ..., 0], 2, axis=1) for path in paths
    }
    assert originals[paths[0]].shape == (HEIGHT, WIDTH)
    assert predictor.predict({}).empty
    table = predictor.predict(originals)
    assert table["path"].tolist() == counted["path"].tolist()
    np.testing.assert_allclose(table.drop(columns="path"), counted.drop(columns="path"), atol=0.05)
    half = RegionPredictor.load(trained, metadata.with_box_choice(LOW_SCORE, 0.5, "rule")).predict(originals)
    np.testing.assert_allclose(half[["width", "height"]], table[["width", "height"]] / 2, rtol=1e-5)


def test_a_detector_that_is_not_evaluated_or_has_other_anchors_gives_no_boxes(trained, drawn):
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    with pytest.raises(MissingInputError, match="cxr evaluate_regions"):
        RegionPredictor.load(trained).predict({"image": image})
    metadata = ModelMetadata.read(trained)
    other = replace(metadata, detector=replace(metadata.detector, anchors="0" * 16))
    with pytest.raises(MissingInputError, match="train it again"):
        RegionPredictor.load(trained, other)
    with pytest.raises(DataError, match="which classifies"):
        RegionPredictor.load(trained, replace(metadata, detector=None))

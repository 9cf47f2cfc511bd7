"""A training runs its phases, keeps the best weights, and resumes after a kill in any phase."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from cxr.data.dataset import DatasetCard
from cxr.errors import ParameterError
from cxr.evaluation.acquisition_changes import ACQUISITION_CHANGES
from cxr.evaluation.metrics import log_loss
from cxr.images.prepared import PreparedImages
from cxr.images.recipes import recipe_named, to_network_input
from cxr.models.metadata import ModelMetadata
from cxr.models.networks import build_network
from cxr.models.pretrained import backbone_layers
from cxr.training.session import TrainingSession
from cxr.training.split_data import SplitData
from cxr.training.trained_model import TrainedModel
from support.kept_checkpoints import keep_checkpoint
from support.short_backbone import LAYERS, short_backbone
from support.sweeps import exhaustive
from support.training_settings import training_settings

RECIPE = recipe_named("s4_resize", size=32)


@pytest.fixture(scope="module", autouse=True)
def short_mobilenet():
    with short_backbone():
        yield


@pytest.fixture(scope="module")
def data():
    """48 images with a brighter patch for pneumonia."""
    images = np.random.default_rng(0).integers(0, 120, (48, 32, 32, 1), dtype=np.uint8)
    images[1::2, 5:17, 5:17] += 80
    names = [str(number) for number in range(48)]
    rows = {name: number for number, name in enumerate(names)}
    frame = pd.DataFrame(
        {"path": names, "label": ["NORMAL", "PNEUMONIA"] * 24, "split": ["train"] * 32 + ["validation"] * 16}
    )
    dataset = DatasetCard("drawn", "patients", "test", 48, 1, "none")
    index = pd.DataFrame({"path": names, "row": range(48)})
    return PreparedImages(images, index, RECIPE, rows), SplitData(frame, dataset, "d" * 64, "grouped", "5" * 64)


@pytest.fixture(scope="module")
def settings(short_mobilenet, tmp_path_factory):
    """A short backbone on weights of a file, two frozen epochs and two of fine-tuning."""
    keras.utils.set_random_seed(4)
    path = tmp_path_factory.mktemp("weights") / "backbone.weights.h5"
    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(path)
    return training_settings(
        "mobilenetv2", weights=str(path), epochs=2, fine_tune_epochs=2, unfrozen_layers=5, dropout=0.2, batch_size=16,
        augmentation={"horizontal_flip": True}, augmented_views=1, fine_tune_learning_rate=1e-3,
    )  # fmt: skip


class KilledError(Exception):
    """Represents a kill between two epochs."""


@pytest.fixture(scope="module")
def uninterrupted(data, settings, tmp_path_factory):
    """Weights and result of a training that was not killed."""
    session = TrainingSession(settings, *data, tmp_path_factory.mktemp("whole"), resume=True)
    result = session.train()
    return session.network.get_weights(), result


def test_training_killed_in_each_phase_goes_on_there_with_the_same_result(data, settings, uninterrupted, tmp_path):
    weights, expected = uninterrupted
    trained = []

    def session_killed_in(epoch):
        def kill(row):
            trained.append(row["epoch"])
            if row["epoch"] == epoch:
                raise KilledError

        session = TrainingSession(settings, *data, tmp_path / "killed", resume=True)
        with pytest.raises(KilledError):
            session.train(run_id="run", on_epoch=kill)
        return session

    assert session_killed_in(2).run_id is None
    assert session_killed_in(4).run_id == "run"
    assert trained == [1, 2, 2, 3, 4], "only what was not finished is trained again"
    session = TrainingSession(settings, *data, tmp_path / "killed", resume=True)
    assert session.run_id == "run"
    result = session.train(on_epoch=lambda row: trained.append(row["epoch"]))
    assert trained[5:] == [4]
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]
    assert [row["val_loss"] for row in result.history] == [row["val_loss"] for row in expected.history]
    for expected_weights, layer_weights in zip(weights, session.network.get_weights(), strict=True):
        np.testing.assert_array_equal(layer_weights, expected_weights)


def test_second_phase_that_only_harms_leaves_the_weights_of_the_first(data, settings, tmp_path):
    harmful = replace(settings, fine_tune_optimizer="sgd", fine_tune_learning_rate=20.0, monitor="loss")
    session = TrainingSession(harmful, *data, tmp_path, resume=True)
    after = {}
    result = session.train(on_epoch=lambda row: after.update({row["epoch"]: session.network.get_weights()}))
    assert result.best_epoch in (1, 2)
    assert all(row["val_loss"] > result.best for row in result.history[2:])
    for expected_weights, layer_weights in zip(after[result.best_epoch], session.network.get_weights(), strict=True):
        np.testing.assert_array_equal(layer_weights, expected_weights)


def test_only_the_layers_of_the_phase_change(data, settings, tmp_path):
    slow_at_first = replace(settings, learning_rate=1e-7, epochs=1, fine_tune_epochs=4)
    session = TrainingSession(slow_at_first, *data, tmp_path, resume=True)
    weights_before = [layer.get_weights() for layer in backbone_layers(session.network)]
    assert session.train().best_epoch > 1
    weights_after = [layer.get_weights() for layer in backbone_layers(session.network)]
    unchanged = [
        all(np.array_equal(*weights) for weights in zip(layer_before, layer_after, strict=True))
        for layer_before, layer_after in zip(weights_before, weights_after, strict=True)
    ]
    assert all(unchanged[:-5])
    assert unchanged[-5:] == [True, False, False, True, True], "a convolution and its normalisation"


def test_training_stops_at_the_wanted_accuracy_on_train(data, tmp_path):
    plain = training_settings("shallow", epochs=60, batch_size=16, stop_at_accuracy=0.9, learning_rate=3e-3)
    result = TrainingSession(plain, *data, tmp_path, resume=True).train()
    assert len(result.history) < 60
    assert result.history[-1]["accuracy"] >= 0.9
    assert all(row["accuracy"] < 0.9 for row in result.history[:-1])
    assert "training accuracy reached 0.9" in result.stopped


def test_without_pretrained_weights_the_whole_network_is_trained_in_one_phase(data, settings, tmp_path):
    session = TrainingSession(replace(settings, weights="none"), *data, tmp_path, resume=True)
    assert [phase.unfrozen for phase in session.phases] == [None]


def test_a_backbone_that_is_not_frozen_is_trained_from_the_first_epoch(data, settings, tmp_path):
    whole = replace(settings, freeze_backbone=False, fine_tune_epochs=0, unfrozen_layers=0, cut="always", epochs=3)
    session = TrainingSession(whole, *data, tmp_path, resume=True)
    assert [phase.unfrozen for phase in session.phases] == [None]
    weights_before = [layer.get_weights() for layer in backbone_layers(session.network)]
    rows = []

    def note(row):
        rows.append(row)
        assert not list(tmp_path.glob("activations-*")), "nothing is frozen, so nothing is stored"

    assert session.train(on_epoch=note).history == rows
    for layer, before in zip(backbone_layers(session.network), weights_before, strict=True):
        assert all(not np.array_equal(*pair) for pair in zip(before, layer.get_weights(), strict=True)), layer.name


def test_only_drawn_phantoms_are_trained_on_a_part_of_the_images(data, settings, tmp_path):
    prepared, split = data
    quarter_normal = replace(
        split, frame=split.frame.assign(label=["NORMAL"] * 8 + ["PNEUMONIA"] * 24 + ["NORMAL", "PNEUMONIA"] * 8)
    )
    one_epoch = replace(settings, epochs=1, fine_tune_epochs=0, phantom_train_images=20)
    trained_on = {}
    for kind in ("phantom", "patients"):
        part = replace(quarter_normal, dataset=replace(split.dataset, kind=kind))
        session = TrainingSession(one_epoch, prepared, part, tmp_path / kind, resume=False)
        trained_on[kind] = session.train().train_images
    paths, labels = quarter_normal.images_of("train", most=20)
    assert trained_on == {"phantom": 20, "patients": 32}
    assert np.bincount(labels).tolist() == [5, 15]
    assert len(set(paths)) == 20
    assert paths == quarter_normal.images_of("train", most=20)[0]


def test_images_are_mixed_and_stored_activations_are_not(data, settings, tmp_path):
    assert TrainingSession(settings, *data, tmp_path, resume=True).stores_activations
    assert not TrainingSession(replace(settings, mixup=0.2), *data, tmp_path, resume=True).stores_activations


def test_the_average_of_a_network_with_frozen_layers_is_of_its_trained_part(data, settings, tmp_path):
    averaged = replace(settings, average_decay=0.5, optimizer="adamw", weight_decay=0.1, warmup_epochs=0.5)
    session = TrainingSession(averaged, *data, tmp_path / "whole", resume=True)
    backbone = [layer.get_weights() for layer in backbone_layers(session.network)[:-5]]
    result = session.train(on_epoch=keep_checkpoint(tmp_path / "whole", tmp_path / "killed", 3))
    for layer, before in zip(backbone_layers(session.network), backbone, strict=False):
        assert all(np.array_equal(*pair) for pair in zip(before, layer.get_weights(), strict=True)), layer.name
    resumed = TrainingSession(averaged, *data, tmp_path / "killed", resume=True)
    assert [row["val_loss"] for row in resumed.train().history] == [row["val_loss"] for row in result.history]
    for expected_weights, weights in zip(session.network.get_weights(), resumed.network.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, expected_weights)


@pytest.mark.parametrize("cut", ["always", *exhaustive("never")])
def test_a_stressed_monitor_measures_each_validation_image_under_one_change(data, settings, tmp_path, cut):
    prepared, split = data
    session = TrainingSession(replace(settings, monitor="stressed_loss", cut=cut), *data, tmp_path, resume=True)
    result = session.train()
    losses = [row["val_stressed_loss"] for row in result.history]
    assert result.best == min(losses) == losses[result.best_epoch - 1]
    paths, labels = split.images_of("validation")
    changed = [
        ACQUISITION_CHANGES[row % len(ACQUISITION_CHANGES)].apply(prepared.images[row]) for row in prepared.rows(paths)
    ]
    outputs = session.network.predict(to_network_input(np.stack(changed), RECIPE), verbose=0)[:, -1]
    assert log_loss(labels, outputs.astype(float)) == pytest.approx(result.best, rel=1e-5)
    assert result.best != pytest.approx(result.history[result.best_epoch - 1]["val_loss"], rel=1e-4)


def test_other_monitors_read_no_changed_images(uninterrupted):
    assert not [name for row in uninterrupted[1].history for name in row if "stressed" in name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unfrozen_layers": 500}, rf"at most {LAYERS}, .* the backbone of mobilenetv2.*unfrozen_layers=500"),
        ({"unfrozen_layers": 0}, r"at least 1 for fine-tuning mobilenetv2, received unfrozen_layers=0"),
    ],
)
def test_layers_that_cannot_be_unfrozen_are_refused_before_training(data, settings, tmp_path, changes, message):
    with pytest.raises(ParameterError, match=message):
        TrainingSession(replace(settings, **changes), *data, tmp_path, resume=True)
    assert not list(tmp_path.iterdir())


def test_network_computed_in_mixed_precision_is_kept_in_float32(data, settings, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = build_network("mobilenetv2", RECIPE.input_shape)  # as a session on a GPU would build it
    finally:
        keras.config.set_dtype_policy("float32")
    assert network.get_layer("Conv1").compute_dtype == "float16"
    result = TrainingSession(training_settings("shallow", epochs=1), *data, tmp_path / "any", resume=True).train()
    origin = {"data_md5": None, "git_commit": None, "environment": "run.txt sha256:1", "pipeline_run": "run-7"}
    TrainedModel(network, result, {}, RECIPE, data[1], {"kind": "gpu"}, origin, None).write(
        tmp_path, "m", "own", 0, mirrored=True
    )
    metadata, dataset = ModelMetadata.read(tmp_path), data[1].dataset
    assert (metadata.environment, metadata.pipeline_run, metadata.image_digest) == ("run.txt sha256:1", "run-7", None)
    assert metadata.mirrored
    assert (metadata.dataset["source"], metadata.dataset["licence"]) == (dataset.source, dataset.licence)
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert {layer.compute_dtype for layer in reloaded.layers} == {"float32"}
    images = np.random.default_rng(0).random((2, *RECIPE.input_shape), dtype=np.float32)
    np.testing.assert_allclose(reloaded(images, training=False), network(images, training=False), atol=5e-3)

"""The steps train_regions and evaluate_regions on phantoms, beside a classifier that the other steps have trained."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr.data.phantom.dataset import draw_dataset
from cxr.errors import DataError, MissingInputError, ParameterError
from cxr.images.decoding import decode_grey
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.regions.evaluation import PHANTOM_NOTE
from cxr.regions.predictor import RegionPredictor
from cxr.steps.evaluate import Evaluate
from cxr.steps.evaluate_regions import EvaluateRegions
from cxr.steps.preprocess import Preprocess
from cxr.steps.register_regions import RegisterRegions
from cxr.steps.resplit import Resplit
from cxr.steps.train_regions import TrainRegions
from cxr.steps.validate import Validate
from cxr.tracking.store import Store
from support.model_folders import write_store
from support.short_backbone import short_lite0
from support.trained_models import MODEL, SmallTraining

NAME = "small_detector"
TRAINING = {
    "model": NAME, "recipe": "s4_resize", "channels": 16, "convolutions": 1, "batch_size": 16, "phantom_epochs": 2,
    "learning_rate": 3e-3, "min_score": 1e-3, "augmentation": {"horizontal_flip": True, "zoom": 0.1},
}  # fmt: skip


@dataclass(frozen=True)
class SmallDetection:
    """Folders of a small classifier and a small detector on the same phantoms."""

    classification: SmallTraining
    uri: str

    @property
    def root(self) -> Path:
        return self.classification.root

    def training(self, **changes: Any) -> TrainRegions:
        values = {
            **TRAINING, "data": self.classification.data, "manifest": self.classification.manifest,
            "splits": self.classification.splits, "prepared": self.root / "prepared" / "s4_resize",
            "trained": self.root / "detector", "checkpoints": self.root / "detector_checkpoints",
            "tracking_uri": self.uri,
        }  # fmt: skip
        return TrainRegions.build({**values, **changes})

    def evaluation(self, folder: Path, **changes: Any) -> EvaluateRegions:
        values = {
            "model": NAME, "data": self.classification.data, "manifest": self.classification.manifest,
            "splits": self.classification.splits, "prepared": self.root / "prepared" / "s4_resize",
            "trained": self.root / "detector", "classifier": self.classification.trained,
            "classifier_evaluation": self.root / "evaluation", "evaluation": folder, "tracking_uri": self.uri,
            "resamples": 100, "box_scales": [0.9, 1.0, 1.1], "heat_levels": [0.3, 0.6], "examples": 4,
        }  # fmt: skip
        return EvaluateRegions.build({**values, **changes})


@pytest.fixture(scope="module")
def small(small_training, phantom_folder, tmp_path_factory) -> SmallDetection:
    """A classifier with its evaluation, and a trained detector; read only."""
    root = shutil.copytree(small_training.root, tmp_path_factory.mktemp("regions"), dirs_exist_ok=True)
    classification = SmallTraining(root, phantom_folder)
    common = {"data": phantom_folder, "manifest": classification.manifest}
    cache = {"cache": root / "cache"}
    Evaluate.build(
        {**common, "model": MODEL, "trained": classification.trained, "prepared": classification.prepared,
         "splits": classification.splits, "evaluation": root / "evaluation", "resamples": 100, "stress": False,
         "tracking_uri": ""}
    ).execute()  # fmt: skip
    Preprocess.build(
        {**common, **cache, "prepared": root / "prepared" / "s4_resize", "recipe": "s4_resize", "size": 96}
    ).execute()
    small = SmallDetection(classification, write_store(root))
    with short_lite0():
        small.training().execute()
    return small


@pytest.fixture(scope="module")
def evaluation(small) -> Path:
    folder = small.root / "detector_evaluation"
    small.evaluation(folder).execute()
    return folder


def test_training_writes_the_folder_of_a_detector(small):
    folder = small.root / "detector"
    names = {"model.keras", "card.json", "history.csv", "training.json", "digests.json"}
    assert {path.name for path in folder.iterdir()} == names
    metadata = ModelMetadata.read(folder)
    assert metadata.model == NAME and metadata.detector is not None
    assert metadata.dataset_kind == "phantom" and metadata.training["epochs_run"] == 2
    history = pd.read_csv(folder / "history.csv")
    assert {"val_mean_average_precision", "class_loss", "val_box_loss", "val_auroc"} <= set(history)
    parameters = json.loads((folder / "training.json").read_text())["parameters"]
    assert parameters["backbone"] == "efficientnet_lite0" and parameters["focal_focus"] == 2.0
    assert not (small.root / "detector_checkpoints").exists()


def test_evaluation_compares_with_a_classifier_and_fixed_boxes(small, evaluation):
    report = json.loads((evaluation / "metrics.json").read_text())
    assert list(report["methods"]) == ["detector", "grad_cam", "prior_with_classifier", "prior"]
    assert report["data"]["note"] == PHANTOM_NOTE
    assert report["classifier"] == MODEL
    assert report["test"]["opacities"] > 0
    summary = json.loads((evaluation / "summary.json").read_text())
    assert 0 <= summary["test_mean_average_precision"] <= 1
    names = {path.name for path in evaluation.iterdir()}
    assert names == {
        "metrics.json", "summary.json", "predictions.parquet", "images.parquet", "methods.csv", "curves", "plots",
        "card.json", "digests.json",
    }  # fmt: skip
    plots = {path.stem for path in (evaluation / "plots").iterdir()}
    assert plots == {"free_response", "methods", "examples", "training"}
    metadata = ModelMetadata.read(evaluation)
    assert metadata.threshold == summary["threshold"] and metadata.detector.box_scale == summary["box_scale"]
    assert "validation" in metadata.threshold_rule


def test_the_evaluated_detector_draws_the_boxes_that_were_judged(small, evaluation):
    table = pd.read_parquet(evaluation / "predictions.parquet")
    table = table[(table["method"] == "detector") & (table["width"] > 0) & (table["height"] > 0)]
    # Two epochs make no sure boxes: the threshold is one that some of them reach.
    threshold = float(table["score"].quantile(0.9))
    metadata = replace(ModelMetadata.read(evaluation), threshold=threshold)
    judged = table[table["score"] >= threshold]
    paths = judged["path"].unique().tolist()[:4]
    images = {path: decode_grey((small.classification.data / path).read_bytes()) for path in paths}
    drawn = RegionPredictor.load(small.root / "detector", metadata).predict(images)
    columns = ["x", "y", "width", "height", "score"]
    for path in paths:
        expected = judged.loc[judged["path"] == path, columns].sort_values("score").to_numpy()
        boxes = drawn.loc[drawn["path"] == path, columns].sort_values("score").to_numpy()
        np.testing.assert_allclose(boxes, expected, atol=0.05)


def test_training_and_evaluation_are_in_one_run(small, evaluation):
    run_id = json.loads((small.root / "detector" / "training.json").read_text())["run_id"]
    run = Store(small.uri).connect().get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["backbone"] == "efficientnet_lite0"
    summary = json.loads((evaluation / "summary.json").read_text())
    assert run.data.metrics["val_loss"] > 0
    assert run.data.metrics["test_auroc"] == pytest.approx(summary["test_auroc"])
    assert run.data.tags["threshold"] == str(summary["threshold"])


def test_the_trained_detector_is_registered_with_the_run_of_its_training(small, evaluation, tmp_path):
    for folder, target in ((small.root / "detector", "models"), (evaluation, "evaluations")):
        shutil.copytree(folder, tmp_path / target / NAME)
    RegisterRegions.build(
        {"models": tmp_path / "models", "evaluations": tmp_path / "evaluations", "tracking_uri": small.uri,
         "splits": small.classification.splits, "registration": tmp_path / "registration", "resamples": 100}
    ).execute()  # fmt: skip
    decision = json.loads((tmp_path / "registration" / "decision.json").read_text())
    assert "gpu" in {rule["name"] for rule in decision["decision"]["rules"] if not rule["passed"]}
    (facts,) = decision["candidates"]
    summary = json.loads((evaluation / "summary.json").read_text())
    for key in ("grad_cam", "prior", "prior_with_classifier"):
        assert facts[f"validation_{key}"] == summary[f"validation_mean_average_precision_{key}"]
    version = Store(small.uri).connect().get_model_version("pneumonia-regions", "1")
    assert version.run_id == json.loads((small.root / "detector" / "training.json").read_text())["run_id"]
    assert PHANTOM_NOTE in version.description


def test_without_a_classifier_only_fixed_boxes_are_compared(small, tmp_path):
    small.evaluation(tmp_path / "alone", classifier=None, classifier_evaluation=None, tracking_uri="").execute()
    report = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    assert list(report["methods"]) == ["detector", "prior"]


@pytest.fixture(scope="module")
def unmarked(small, tmp_path_factory) -> dict[str, Path]:
    """Folders of another data set, whose opacities nobody has marked."""
    root = tmp_path_factory.mktemp("unmarked")
    data, manifest, cache = root / "data", root / "manifest", {"cache": root / "cache"}
    draw_dataset(data, images=60, seed=7)
    (data / "boxes.json").unlink()
    Validate.build({"data": data, "manifest": manifest, "report": root / "report", **cache}).execute()
    Resplit.build({"manifest": manifest, "splits": root / "splits", "max_deviation": 1}).execute()
    Preprocess.build(
        {"data": data, "manifest": manifest, "prepared": root / "prepared", "recipe": "s4_resize", "size": 96, **cache}
    ).execute()
    return {"unmarked_manifest": manifest, "unmarked_splits": root / "splits", "unmarked_prepared": root / "prepared"}


@pytest.mark.exhaustive  # tests/regions/test_region_evaluation.py judges images without boxes
def test_images_without_boxes_are_measured_as_far_as_possible(small, unmarked, tmp_path):
    alone = {"classifier": None, "classifier_evaluation": None, "tracking_uri": ""}
    small.evaluation(tmp_path / "a", **alone, **unmarked).execute()
    figures = json.loads((tmp_path / "a" / "metrics.json").read_text())["unmarked"]
    splits = pd.read_parquet(unmarked["unmarked_splits"] / "splits.parquet")
    assert figures["images"] == (splits["split"] == "test").sum() > 0
    assert figures["data"] == {"name": "phantom", "kind": "phantom", "protocol": "grouped"}
    assert figures["auroc"]["low"] <= figures["auroc"]["value"] <= figures["auroc"]["high"]
    assert 0.1 < figures["area_in_lungs_by_chance"] < 0.9

    with pytest.raises(ParameterError, match="unmarked_prepared=None"):
        small.evaluation(tmp_path / "b", **alone, **{**unmarked, "unmarked_prepared": None})
    same = {
        "unmarked_manifest": small.classification.manifest, "unmarked_splits": small.classification.splits,
        "unmarked_prepared": small.root / "prepared" / "s4_resize",
    }  # fmt: skip
    with pytest.raises(DataError, match="another data set than the detector's"):
        small.evaluation(tmp_path / "c", **alone, **same).execute()
    other_recipe = {**unmarked, "unmarked_prepared": small.classification.prepared}
    with pytest.raises(DataError, match="expected images of the recipe"):
        small.evaluation(tmp_path / "d", **alone, **other_recipe).execute()


def test_what_does_not_fit_together_is_refused(small, evaluation, tmp_path):
    with pytest.raises(ParameterError, match="classifier_evaluation=None"):
        small.evaluation(tmp_path / "a", classifier_evaluation=None)
    with pytest.raises(DataError, match="expected the metadata of another"):
        small.evaluation(tmp_path / "b", model="another").execute()
    with pytest.raises(DataError, match="which classifies"):
        small.evaluation(tmp_path / "c", trained=small.classification.trained).execute()
    with pytest.raises(DataError, match="expected a classifier"):
        Predictor.load(small.root / "detector")
    other_split = tmp_path / "other_split"
    other_split.mkdir()
    replace(ModelMetadata.read(small.root / "evaluation"), split_digest="0" * 64).write(other_split)
    with pytest.raises(DataError, match="same split as the detector"):
        small.evaluation(tmp_path / "d", classifier_evaluation=other_split).execute()
    (tmp_path / "data").mkdir()
    with pytest.raises(MissingInputError, match=r"without boxes\.json"):
        small.training(data=tmp_path / "data", trained=tmp_path / "e", checkpoints=tmp_path / "f").execute()


def test_wrong_parameters_are_reported_together(small):
    with pytest.raises(ParameterError) as error:
        small.training(backbone="vgg16", min_score=0, max_overlap=2)
    assert all(name in str(error.value) for name in ("backbone", "efficientnet_lite0", "min_score", "max_overlap"))
    with pytest.raises(ParameterError, match="expected optimizer=adamw"):
        small.training(optimizer="adam", weight_decay=0.1)
    with pytest.raises(ParameterError, match="box_scales"):
        small.evaluation(small.root / "x", box_scales=[0.0])

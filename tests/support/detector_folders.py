"""A small real detector in several folders, as training and evaluation leave them, with simulated evaluations."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cxr.files import NETWORK_FILE
from cxr.images.recipes import recipe_named
from cxr.models.metadata import DetectorMetadata, ModelMetadata
from cxr.promotion.policy import DetectorPolicy
from cxr.regions.evaluation import RegionEvaluation, evaluate_regions
from cxr.regions.files import write_region_evaluation
from cxr.regions.methods import DETECTOR, HEAT, PRIOR, PRIOR_WITH_CLASSIFIER, add_box_choice
from cxr.regions.predictor import anchors_version
from cxr.steps.register_regions import RegisterRegions
from support.model_folders import CPU, GPU
from support.short_backbone import short_lite0
from support.simulated_boxes import (
    PATIENTS_CARD,
    SETTINGS,
    annotated_images,
    detected_boxes,
    region_methods,
)

RECIPE = recipe_named("s4_resize", size=96)
HISTORY = "epoch,loss,val_loss,val_mean_average_precision\n1,1.7,1.6,0.1\n2,1.5,1.4,0.2\n"
ON_GPU = {"device": GPU, "seconds": 60.0, "epochs_run": 2, "best_epoch": 2}
COUNT = 180
"""Images: 60 of each split."""
QUICK = replace(SETTINGS, box_scales=(0.9, 1.0), resamples=20)
ON_CPU = {**ON_GPU, "device": CPU}


def region_policy(**changes: Any) -> DetectorPolicy:
    """The policy of `cxr register_regions`, with changes to its defaults."""
    step = RegisterRegions.build({})
    return replace(DetectorPolicy(**step.values_of(DetectorPolicy)), **changes)


@dataclass(frozen=True)
class DetectorFolders:
    """Folders of some detectors, all judged on one split of simulated images."""

    root: Path

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def evaluations(self) -> Path:
        return self.root / "evaluations"

    @property
    def splits(self) -> Path:
        return self.root / "splits"

    def step(self, **changes: Any) -> RegisterRegions:
        """The step that registers them, with few replicates."""
        values = {
            "models": self.models, "evaluations": self.evaluations, "splits": self.splits,
            "registration": self.root / "registration", "resamples": 200,
            "tracking_uri": f"sqlite:///{self.root}/mlflow.db",
        }  # fmt: skip
        return RegisterRegions.build({**values, **changes})

    def decision(self) -> dict[str, Any]:
        """What the step has decided."""
        return dict(json.loads((self.root / "registration" / "decision.json").read_text()))

    def write(self, name: str, *, noise: float = 0.05, **changes: Any) -> ModelMetadata:
        """Write a detector whose boxes have this error, in shares of their size; ``changes`` are to its metadata."""
        trained, evaluation = self.models / name, self.evaluations / name
        for folder in (trained, evaluation):
            folder.mkdir(parents=True, exist_ok=True)
        (trained / NETWORK_FILE).write_bytes(small_detector())
        (trained / "history.csv").write_text(HISTORY)
        (trained / "training.json").write_text(json.dumps({"run_id": None}))
        metadata = detector_metadata(name, **changes)
        metadata.write(trained)
        judged = _judged(noise)
        write_region_evaluation(evaluation, judged)
        evaluated = add_box_choice(metadata, judged)
        evaluated.write(evaluation)
        self._write_splits()
        return evaluated

    def _write_splits(self) -> None:
        self.splits.mkdir(exist_ok=True)
        images, _ = annotated_images(COUNT)
        rows = images[["path", "group", "label", "subtype", "split"]].assign(patient=images["group"])
        digests = [hashlib.sha256(path.encode()).hexdigest() for path in rows["path"]]
        rows.assign(sha256=digests).to_parquet(self.splits / "splits.parquet", index=False)


def detector_metadata(name: str = "retinanet", **changes: Any) -> ModelMetadata:
    """Metadata of a detector before its evaluation."""
    values: dict[str, Any] = {
        "model": name,
        "system": "S1",
        "recipe": RECIPE.to_dict(),
        "input_shape": RECIPE.input_shape,
        "parameters": 45,
        "seed": 0,
        "dataset": {"name": "rsna", "kind": "patients"},
        "data_digest": "d" * 64,
        "split_protocol": "grouped",
        "split_digest": "5" * 64,
        "git_commit": "c" * 40,
        "training": ON_GPU,
        "detector": DetectorMetadata("efficientnet_lite0", False, anchors_version(RECIPE.size), 0.001, 0.3, 20),
    }
    return ModelMetadata(**{**values, **changes})


@cache
def small_detector() -> bytes:
    """The file of a detector that was not trained but is real."""
    import keras

    from cxr.regions.detector import build_detector

    keras.utils.set_random_seed(0)
    with short_lite0(), tempfile.TemporaryDirectory() as scratch:
        network = build_detector(
            "efficientnet_lite0", RECIPE.input_shape, squeeze_excitation=False, weights="none", channels=16,
            convolutions=1, dropout=0.0,
        )  # fmt: skip
        network.save(Path(scratch) / NETWORK_FILE)
        return (Path(scratch) / NETWORK_FILE).read_bytes()


@cache
def _judged(noise: float) -> RegionEvaluation:
    images, boxes = annotated_images(COUNT)
    detector, heat, classified, prior = region_methods(images, boxes).values()
    methods = {
        DETECTOR: replace(detector, predictions=detected_boxes(images, boxes, noise=noise)),
        HEAT: heat, PRIOR_WITH_CLASSIFIER: classified, PRIOR: prior,
    }  # fmt: skip
    return evaluate_regions(images, boxes, methods, PATIENTS_CARD, QUICK)

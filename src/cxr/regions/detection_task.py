"""Training of a detector: its losses, its metrics, and its validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from cxr.evaluation.metrics import auroc
from cxr.models.metadata import DetectorMetadata
from cxr.regions.assignment import ASSIGNED, assign_batch
from cxr.regions.batches import RegionBatches
from cxr.regions.losses import detection_losses
from cxr.regions.operating_point import choose_region_operating_point
from cxr.regions.predictor import box_table, decode_outputs, detection_table
from cxr.regions.suppression import DetectedBoxes
from cxr.training.compilation import compile_network
from cxr.training.plan import TrainingPlan
from cxr.training.read_ahead import ReadAhead

LOSS_NAMES = {"class_logits": "class_loss", "box_deltas": "box_loss", "image_logit": "image_loss"}
"""Output of the detector to the name of its loss in the history."""


@dataclass(frozen=True)
class DetectionLossSettings:
    """The losses of a detector and their weights.

    Attributes:
        focal_balance: weight of positive anchors, see :func:`cxr.regions.losses.detection_losses`.
        focal_focus: how much less an anchor counts the surer its answer is right, see there.
        box_loss_weight: weight of the loss of the deltas, beside 1 for that of the anchors' classes.
        image_loss_weight: weight of the loss of the output for the whole image; 0 does not train it.
    """

    focal_balance: float
    focal_focus: float
    box_loss_weight: float
    image_loss_weight: float

    @property
    def weights(self) -> dict[str, float]:
        """Output of the detector to the weight of its loss."""
        return {"class_logits": 1.0, "box_deltas": self.box_loss_weight, "image_logit": self.image_loss_weight}


class DetectionTask:
    """Finds opacities: a :class:`cxr.training.task.TrainingTask`.

    The history has loss (the weighted sum), class_loss, box_loss and image_loss of the training images, as measured
    during the epoch, and of validation. There it also has mean_average_precision, the highest of all thresholds of the
    score, and auroc, that of the output for the whole image.
    """

    shown: tuple[str, ...] = ("loss", "mean_average_precision")

    def __init__(self, validation: RegionBatches, losses: DetectionLossSettings, detector: DetectorMetadata) -> None:
        """Remember images and settings.

        Args:
            validation: validation images in fixed order, without augmentation; some of them have boxes.
            losses: the losses.
            detector: which boxes are proposed and judged.
        """
        self._validation = validation
        self._loss_weights = losses.weights
        self._losses = detection_losses(focal_balance=losses.focal_balance, focal_focus=losses.focal_focus)
        self._detector = detector

    def compile(self, model: keras.Model, plan: TrainingPlan, schedule: Any) -> None:
        """Give a detector its optimizer and its losses.

        Args:
            model: the detector.
            plan: how it is trained.
            schedule: see :meth:`cxr.training.task.TrainingTask.compile`.
        """
        targets = assign_batch(self._validation.anchors, [np.empty((0, 4), np.float32)], most=0)
        outputs = self._validation.prepare_targets(targets)
        compile_network(
            model, plan, schedule, loss=self._losses, loss_weights=self._loss_weights, metrics=None,
            targets=targets, predictions={**outputs, "box_deltas": outputs["box_deltas"][..., :4]},
        )  # fmt: skip

    def training_metrics(self, logs: Mapping[str, float]) -> dict[str, float]:
        """Name the losses; see :meth:`cxr.training.task.TrainingTask.training_metrics`."""
        return {"loss": logs["loss"], **{name: logs[f"{output}_loss"] for output, name in LOSS_NAMES.items()}}

    def validation_metrics(self, model: keras.Model) -> dict[str, float]:
        """Measure losses and boxes; see :meth:`cxr.training.task.TrainingTask.validation_metrics`.

        The losses of anchors are sums over all images, divided by the positive anchors of all images, so that they do
        not depend on the size of a batch.
        """
        batches = self._validation
        sums, divisors = np.zeros(len(LOSS_NAMES)), np.zeros(len(LOSS_NAMES))
        detections: list[DetectedBoxes] = []
        logits: list[NDArray[np.float32]] = []
        with ReadAhead(batches) as ahead:
            for number in range(len(ahead)):
                images, boxes = ahead[number]
                outputs = {name: np.asarray(values) for name, values in model.predict_on_batch(images).items()}
                detections += decode_outputs(outputs, batches.anchors, batches.recipe.size, self._detector)
                logits.append(outputs["image_logit"][:, 0])
                positive = (boxes[ASSIGNED] >= 0).sum()
                divisors_of_batch = np.array([positive, positive, len(images)], np.float64)
                targets = batches.prepare_targets(boxes)
                means = [keras.ops.mean(self._losses[name](targets[name], outputs[name])) for name in LOSS_NAMES]
                # A batch without boxes counts as having one positive anchor.
                sums += np.maximum(divisors_of_batch, 1) * [float(keras.ops.convert_to_numpy(mean)) for mean in means]
                divisors += divisors_of_batch
        losses = dict(zip(LOSS_NAMES, (sums / np.maximum(divisors, 1)).tolist(), strict=True))
        return {
            "loss": sum(self._loss_weights[output] * value for output, value in losses.items()),
            **{LOSS_NAMES[output]: value for output, value in losses.items()},
            "mean_average_precision": _best_mean_average_precision(batches, detections),
            "auroc": float(auroc(batches.labels, expit(np.concatenate(logits).astype(np.float64)))),
        }


def _best_mean_average_precision(batches: RegionBatches, detections: Sequence[DetectedBoxes]) -> float:
    """Mean average precision in pixels of the prepared images, at the threshold that suits it best."""
    paths = [str(number) for number in range(len(batches.boxes))]
    images = pd.DataFrame({"path": paths, "height": batches.recipe.size, "width": batches.recipe.size})
    return choose_region_operating_point(
        images, box_table(paths, batches.boxes), detection_table(paths, detections), box_scales=(1.0,)
    ).mean_average_precision

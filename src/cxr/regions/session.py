"""One training of a detector: the settings, the network, and the images with their boxes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.boxes import BoxAnnotations, Boxes
from cxr.data.split_table import TRAIN, VALIDATION
from cxr.errors import DataError
from cxr.images.prepared import PreparedImages
from cxr.models.metadata import DetectorMetadata
from cxr.regions.batches import RegionBatches
from cxr.regions.detection_task import DetectionLossSettings, DetectionTask
from cxr.regions.detector import build_detector
from cxr.regions.placement import to_prepared
from cxr.regions.predictor import anchors_version
from cxr.training.checkpoint import Checkpoint, fingerprint_training
from cxr.training.feeding import choose_steps_per_execution, feed_device
from cxr.training.loop import TrainingResult, fit
from cxr.training.split_data import SplitData
from cxr.training.training_settings import TrainingSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegionTrainingSettings(TrainingSettings):
    """Everything that a detector depends on beside its images; the step ``train_regions`` describes each value."""

    backbone: str
    squeeze_excitation: bool
    channels: int
    convolutions: int
    dropout: float
    focal_balance: float
    focal_focus: float
    box_loss_weight: float
    image_loss_weight: float
    min_score: float
    max_overlap: float
    max_boxes: int


class RegionTrainingSession:
    """One training of a detector, ready to start or to resume.

    Attributes:
        network: the detector; after :meth:`train` with the weights of its best epoch.
        detector: what its outputs mean, for its metadata.
        validation: the validation images with the targets of the detector.
        device: the device, as :func:`cxr.training.device.describe_device` gives it.
        run_id: tracking run that a killed training logged to, or None.
    """

    def __init__(
        self,
        settings: RegionTrainingSettings,
        prepared: PreparedImages,
        data: SplitData,
        annotations: BoxAnnotations,
        manifest: pd.DataFrame,
        folder: Path,
        *,
        resume: bool,
    ) -> None:
        """Build the network and check the settings; nothing that takes long is done yet.

        Args:
            settings: what the detector depends on.
            prepared: prepared images.
            data: split of the images.
            annotations: the boxes of the images.
            manifest: one row per file with the columns path, height and width of the original in pixels.
            folder: where checkpoints are kept until the caller removes it.
            resume: whether to resume from the checkpoint of a killed run with the same settings.

        Raises:
            ParameterError: if the settings do not suit the network, the recipe or each other.
            DataError: if an image is not annotated, or train or validation has no box or only one class.
        """
        self._settings = settings
        self._prepared = prepared
        self._data = data
        device = settings.prepare_device()
        self.device, self._batch_size = device.facts, device.batch_size
        self.network = build_detector(
            settings.backbone, prepared.recipe.input_shape, squeeze_excitation=settings.squeeze_excitation,
            weights=settings.weights, channels=settings.channels, convolutions=settings.convolutions,
            dropout=settings.dropout,
        )  # fmt: skip
        self.detector = DetectorMetadata(
            settings.backbone, settings.squeeze_excitation, anchors_version(prepared.recipe.size),
            settings.min_score, settings.max_overlap, settings.max_boxes,
        )  # fmt: skip
        sizes = manifest.set_index("path")[["height", "width"]]
        self._train = self._batches(TRAIN, annotations, sizes)
        self.validation = self._batches(VALIDATION, annotations, sizes)
        feed_device(self._train, settings.on_device, on_gpu=device.on_gpu)
        self._steps_per_execution = choose_steps_per_execution(self.network, on_gpu=device.on_gpu)
        self._checkpoint = Checkpoint(folder, self.fingerprint())
        self._state = self._checkpoint.load() if resume else None
        self.run_id = self._state.progress.run_id if self._state else None

    def train(
        self, *, run_id: str | None = None, on_epoch: Callable[[dict[str, float]], None] | None = None
    ) -> TrainingResult:
        """Train the detector.

        Args:
            run_id: tracking run to note in checkpoints.
            on_epoch: called with the row of metrics after each epoch; an exception that it raises ends the training.

        Returns:
            The history and the best epoch.
        """
        settings = self._settings
        losses = DetectionLossSettings(
            **{name: getattr(settings, name) for name in DetectionLossSettings.__dataclass_fields__}
        )
        # All layers are trained in one phase.
        plan = settings.plan(settings.rate_factor(self._batch_size), phantom=self._data.dataset.kind == "phantom")
        log.info("%s: all layers are trained on %d images", self.network.name, self._train.count)
        return fit(
            self.network, self._train, DetectionTask(self.validation, losses, self.detector), plan,
            steps_per_execution=self._steps_per_execution, checkpoint=self._checkpoint, state=self._state,
            run_id=run_id, on_epoch=on_epoch,
        )  # fmt: skip

    def fingerprint(self) -> str:
        """Compute the digest of everything that this training depends on.

        Returns:
            Hexadecimal SHA-256.
        """
        others = [
            [_digest(batches.boxes) for batches in (self._train, self.validation)],
            [self.detector.anchors, self._batch_size, keras.backend.backend(), keras.config.dtype_policy().name],
        ]
        return fingerprint_training(self._settings, self._prepared.recipe, self._data, others)

    def _batches(self, split: str, annotations: BoxAnnotations, sizes: pd.DataFrame) -> RegionBatches:
        """Batches of train (shuffled, augmented) or validation, with boxes in pixels of the prepared images."""
        settings, prepared = self._settings, self._prepared
        paths, labels = self._data.images_of(split)
        boxes = [
            to_prepared(image.boxes, prepared.recipe, height, width).boxes
            for image, (height, width) in zip(
                annotations.select(paths), sizes.loc[paths].to_numpy(dtype=np.int64).tolist(), strict=True
            )
        ]
        if not any(len(image_boxes) for image_boxes in boxes):
            raise DataError(
                f"expected opacities with boxes in {split}, received none in {len(paths)} images; "
                "choose a data set with boxes, or another split"
            )
        is_train = split == TRAIN
        rows: NDArray[np.int64] = prepared.rows(paths)
        return RegionBatches(
            prepared.images, rows, labels, boxes, prepared.recipe, batch_size=self._batch_size, shuffle=is_train,
            augmentation=settings.random_changes() if is_train else None,
            balance=settings.balance if is_train else "none", seed=settings.seed,
        )  # fmt: skip


def _digest(boxes: list[Boxes]) -> str:
    digest = hashlib.sha256()
    for image_boxes in boxes:
        digest.update(len(image_boxes).to_bytes(4, "little") + image_boxes.tobytes())
    return digest.hexdigest()

"""Everything that a trained network depends on beside its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cxr.training.augmentation import Augmentation
from cxr.training.batches import Balance
from cxr.training.device import Precision, PreparedDevice, prepare_device
from cxr.training.feeding import OnDevice
from cxr.training.plan import (
    LearningRateRule,
    Monitor,
    OptimizerName,
    Schedule,
    TrainingPlan,
    learning_rate_factor,
)

CutMode = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class TrainingSettings:
    """What the training of a classifier and that of a detector both depend on; the steps describe each value."""

    optimizer: OptimizerName
    learning_rate: float
    learning_rate_rule: LearningRateRule
    weight_decay: float
    schedule: Schedule
    warmup_epochs: float
    average_decay: float
    batch_size: int
    epochs: int
    phantom_epochs: int
    monitor: Monitor
    early_stop_patience: int
    reduce_lr_patience: int
    reduce_lr_factor: float
    min_learning_rate: float
    weights: str
    gpu_batch_size: int | None
    gpu_precision: Precision
    on_device: OnDevice
    balance: Balance
    augmentation: dict[str, float | bool]
    seed: int

    def prepare_device(self) -> PreparedDevice:
        """Set seeds, precision and use of memory, before the network is built.

        Returns:
            The device, and the size of a batch on it.
        """
        return prepare_device(
            self.seed, batch_size=self.batch_size, gpu_batch_size=self.gpu_batch_size,
            gpu_precision=self.gpu_precision,
        )  # fmt: skip

    def random_changes(self) -> Augmentation | None:
        """Random changes of the training images; None for none.

        Raises:
            ParameterError: if a change is out of its bounds.
        """
        augmentation = Augmentation(**self.augmentation)  # type: ignore[arg-type]  # bounds are checked there
        return augmentation if augmentation.is_active else None

    def rate_factor(self, batch_size: int) -> float:
        """Choose the factor of learning rates for the batches of a device.

        Args:
            batch_size: images per batch on the device.

        Returns:
            The factor.
        """
        return learning_rate_factor(self.learning_rate_rule, batch_size / self.batch_size)

    def limit_epochs(self, epochs: int, *, phantom: bool) -> int:
        """Limit epochs on drawn phantoms, which only show that all works.

        Args:
            epochs: maximum on radiographs of patients.
            phantom: whether the images are phantoms.

        Returns:
            The maximum on these images.
        """
        return min(epochs, self.phantom_epochs) if phantom else epochs

    def plan(self, factor: float = 1.0, *, phantom: bool) -> TrainingPlan:
        """Plan a phase of the training. What these settings do not have keeps the plan's default.

        Args:
            factor: multiplies the learning rate.
            phantom: whether the images are drawn phantoms, which have their own number of epochs.

        Returns:
            The plan.
        """
        names = TrainingPlan.__dataclass_fields__.keys() & self.__dataclass_fields__.keys()
        values = {name: getattr(self, name) for name in names}
        epochs = self.limit_epochs(self.epochs, phantom=phantom)
        return TrainingPlan(**values | {"epochs": epochs, "learning_rate": factor * self.learning_rate})


@dataclass(frozen=True)
class ClassifierTrainingSettings(TrainingSettings):
    """Everything that a classifier depends on beside its images; the step ``train`` describes each value."""

    architecture: str
    label_smoothing: float
    mixup: float
    phantom_train_images: int | None
    stop_at_accuracy: float | None
    dropout: float | None
    batch_normalisation: bool | None
    freeze_backbone: bool
    unfrozen_layers: int
    fine_tune_epochs: int
    fine_tune_optimizer: OptimizerName
    fine_tune_learning_rate: float
    cut: CutMode
    augmented_views: int

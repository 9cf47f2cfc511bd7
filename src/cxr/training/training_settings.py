"""Everything that a trained network depends on beside its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cxr.training.batches import Balance
from cxr.training.device import Precision
from cxr.training.feeding import OnDevice
from cxr.training.plan import LearningRateRule, Monitor, OptimizerName, Schedule

CutMode = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that a trained network depends on beside its images; the step ``train`` describes each value."""

    architecture: str
    optimizer: OptimizerName
    learning_rate: float
    learning_rate_rule: LearningRateRule
    weight_decay: float
    schedule: Schedule
    warmup_epochs: float
    average_decay: float
    label_smoothing: float
    mixup: float
    batch_size: int
    epochs: int
    phantom_epochs: int
    phantom_train_images: int | None
    monitor: Monitor
    early_stop_patience: int
    reduce_lr_patience: int
    reduce_lr_factor: float
    min_learning_rate: float
    stop_at_accuracy: float | None
    dropout: float | None
    batch_normalisation: bool | None
    weights: str
    freeze_backbone: bool
    unfrozen_layers: int
    fine_tune_epochs: int
    fine_tune_optimizer: OptimizerName
    fine_tune_learning_rate: float
    cut: CutMode
    augmented_views: int
    gpu_batch_size: int | None
    gpu_precision: Precision
    on_device: OnDevice
    balance: Balance
    augmentation: dict[str, float | bool]
    seed: int

"""The plan of a training phase: optimizer, learning rate, averages, and when it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

OptimizerName = Literal["adam", "adamw", "nadam", "rmsprop", "sgd"]
Schedule = Literal["constant", "cosine"]
LearningRateRule = Literal["constant", "linear", "sqrt"]
Monitor = Literal["loss", "auroc", "stressed_loss", "stressed_auroc", "mean_average_precision"]
"""Validation metrics that can decide. The stressed ones are measured on images under acquisition changes, and the last
one belongs to detectors."""


def learning_rate_factor(rule: LearningRateRule, batches: float) -> float:
    """Choose the factor of a learning rate for larger batches.

    Args:
        rule: ``"linear"`` (Goyal et al. 2017, arXiv:1706.02677, for SGD), ``"sqrt"`` (Malladi et al. 2022,
            arXiv:2205.10287, for Adam and RMSprop), or ``"constant"``.
        batches: size of a batch, divided by the size that the learning rate was chosen for.

    Returns:
        The factor.
    """
    return {"constant": 1.0, "linear": batches, "sqrt": math.sqrt(batches)}[rule]


def is_stressed(monitor: Monitor) -> bool:
    """Tell whether a metric is measured on images under acquisition changes.

    Args:
        monitor: the metric.

    Returns:
        Whether it is.
    """
    return monitor.startswith("stressed_")


def higher_is_better(monitor: Monitor) -> bool:
    """Tell in which direction a metric is better.

    Args:
        monitor: the metric.

    Returns:
        False for a loss, True for any other.
    """
    return not monitor.endswith("loss")


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained.

    Attributes:
        optimizer: name of the Keras optimizer.
        learning_rate: learning rate of the first epoch; with warm-up or a schedule the highest.
        weight_decay: share of each weight, times the learning rate, that a step of ``adamw`` takes away (Loshchilov
            and Hutter 2017, arXiv:1711.05101). Biases and parameters of normalisation keep their size.
        schedule: ``"cosine"`` lowers the rate with each step, along half a cosine, to 0 after the last epoch;
            ``"constant"`` leaves it.
        warmup_epochs: number of epochs in which the rate rises with each step, from near 0; 0 for none.
        average_decay: decay of the moving average of the weights per step, in (0, 1); 0 averages nothing. Validation
            measures the averages, and they are the weights of the best epoch.
        epochs: maximum number of epochs.
        monitor: validation metric that decides on the best epoch, early stopping and the learning rate.
        early_stop_patience: number of epochs without improvement before training stops; 0 never stops.
        reduce_lr_patience: number of epochs without improvement before the rate is lowered; 0 never lowers it.
        reduce_lr_factor: factor by which the rate is lowered.
        min_learning_rate: the rate is never lowered below this.
        seed: seed of weights, order, augmentation and dropout.
        label_smoothing: share of each label that is spread over both classes, in [0, 1).
        stop_at_accuracy: accuracy on the training images, measured during the epoch, at which training stops
            (S3: 0.975); None never stops.
    """

    optimizer: OptimizerName
    learning_rate: float
    weight_decay: float
    schedule: Schedule
    warmup_epochs: float
    average_decay: float
    epochs: int
    monitor: Monitor
    early_stop_patience: int
    reduce_lr_patience: int
    reduce_lr_factor: float
    min_learning_rate: float
    seed: int
    label_smoothing: float = 0.0
    stop_at_accuracy: float | None = None

"""What a network is trained for: the part of training that differs between classifiers and detectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import keras

from cxr.training.plan import TrainingPlan


class TrainingTask(Protocol):
    """What :func:`cxr.training.loop.fit` needs to know about a kind of network and the images that judge it.

    Attributes:
        shown: metrics to show after each epoch, ``loss`` among them; those that the training images lack are shown for
            validation alone.
    """

    shown: tuple[str, ...]

    def compile(self, model: keras.Model, plan: TrainingPlan, schedule: Any) -> None:
        """Give a network its optimizer, loss and training metrics.

        Args:
            model: the network; its ``trainable`` flags are set.
            plan: how it is trained.
            schedule: the return value of :func:`cxr.training.compilation.learning_rate_schedule`.
        """

    def training_metrics(self, logs: Mapping[str, float]) -> dict[str, float]:
        """Name what Keras measured on the training images during an epoch.

        Args:
            logs: what ``keras.Model.fit`` recorded for the epoch.

        Returns:
            The entries of the epoch's row in the history, ``loss`` among them.
        """

    def validation_metrics(self, model: keras.Model) -> dict[str, float]:
        """Measure a network on the validation images.

        Args:
            model: the network.

        Returns:
            Metrics, the monitor of the plan among them. The history has them with ``val_`` before their names.
        """

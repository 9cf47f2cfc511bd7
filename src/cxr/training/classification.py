"""Training of a classifier: its loss, its metrics, and its validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cxr.evaluation import metrics
from cxr.training.batches import Batches
from cxr.training.compilation import compile_network
from cxr.training.plan import TrainingPlan
from cxr.training.read_ahead import ReadAhead


class ClassificationTask:
    """Tells pneumonia from normal: a :class:`cxr.training.task.TrainingTask`.

    The history has loss, accuracy, precision, recall, f1 and auroc of the training images, as measured during the
    epoch; the same of validation; and stressed_loss and stressed_auroc of validation where there are changed images.

    Attributes:
        validation: validation images in fixed order.
        changed_validation: the same under acquisition changes, for a monitor that is measured on them; None without.
    """

    shown: tuple[str, ...] = ("loss", "auroc")

    def __init__(self, validation: Batches, changed_validation: Batches | None = None) -> None:
        """Remember the images.

        Args:
            validation: as the attribute; without augmentation.
            changed_validation: as the attribute.
        """
        self.validation = validation
        self.changed_validation = changed_validation

    def compile(self, model: keras.Model, plan: TrainingPlan, schedule: Any) -> None:
        """Give a network its optimizer, the cross-entropy and metrics of the probability of pneumonia.

        Args:
            model: network with as many outputs as the batches have.
            plan: how it is trained.
            schedule: see :meth:`cxr.training.task.TrainingTask.compile`.
        """
        outputs = self.validation.outputs
        loss = keras.losses.CategoricalCrossentropy if outputs == 2 else keras.losses.BinaryCrossentropy
        compile_network(
            model, plan, schedule,
            loss=loss(label_smoothing=plan.label_smoothing),
            loss_weights=None,
            metrics=[
                _of_last_column(keras.metrics.BinaryAccuracy)(name="accuracy"),
                _of_last_column(keras.metrics.Precision)(name="precision"),
                _of_last_column(keras.metrics.Recall)(name="recall"),
                _of_last_column(keras.metrics.AUC)(name="auroc"),
            ],
            targets=keras.ops.zeros((1, outputs)),
            predictions=keras.ops.zeros((1, outputs)),
        )  # fmt: skip

    def training_metrics(self, logs: Mapping[str, float]) -> dict[str, float]:
        """Name what Keras measured, and add f1; see :meth:`cxr.training.task.TrainingTask.training_metrics`."""
        row = {name: logs[name] for name in ("loss", "accuracy", "precision", "recall", "auroc")}
        return {**row, "f1": _f1(row["precision"], row["recall"])}

    def validation_metrics(self, model: keras.Model) -> dict[str, float]:
        """Compute exact metrics at threshold 0.5; see :meth:`cxr.training.task.TrainingTask.validation_metrics`."""
        row = _exact_metrics(model, self.validation)
        if self.changed_validation is not None:
            stressed = _exact_metrics(model, self.changed_validation)
            row |= {f"stressed_{name}": stressed[name] for name in ("loss", "auroc")}
        return row


def predict_batches(model: keras.Model, batches: Batches) -> NDArray[np.float64]:
    """Predict probabilities of pneumonia during training; float32 precision, not calibrated.

    Args:
        model: the network, with the input that batches have (:mod:`cxr.training.prepared_input`).
        batches: batches in fixed order.

    Returns:
        ``(images,)`` float64 in [0, 1].
    """
    with ReadAhead(batches) as ahead:
        outputs = [np.asarray(model.predict_on_batch(ahead[number][0]))[:, -1] for number in range(len(ahead))]
    return np.concatenate(outputs).astype(np.float64)


def _exact_metrics(model: keras.Model, batches: Batches) -> dict[str, float]:
    probability = predict_batches(model, batches)
    decision = metrics.decision_metrics(metrics.confusion(batches.labels, probability, 0.5))
    return {
        "loss": float(metrics.log_loss(batches.labels, probability)),
        "accuracy": float(decision["accuracy"]),
        "precision": float(decision["precision"]),
        "recall": float(decision["sensitivity"]),
        "f1": float(decision["f1"]),
        "auroc": float(metrics.auroc(batches.labels, probability)),
    }


def _of_last_column(base: type[Any]) -> type[Any]:
    """Restrict a metric to the last column: the probability of pneumonia, whether there are one or two outputs.

    The label of a mixture of images is that of the larger share.
    """

    class LastColumnMetric(base):  # type: ignore[misc]  # the base is chosen at run time
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            return super().update_state(keras.ops.round(y_true[..., -1:]), y_pred[..., -1:], sample_weight)

    return LastColumnMetric


def _f1(precision: float, recall: float) -> float:
    total = precision + recall
    return 2 * precision * recall / total if total else float("nan")

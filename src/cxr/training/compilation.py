"""What Keras needs to train a network: optimizer, learning-rate schedule, loss and metrics."""

from __future__ import annotations

from typing import Any

import keras

from cxr.training.plan import TrainingPlan

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


def learning_rate_schedule(plan: TrainingPlan, steps_per_epoch: int) -> Any:
    """Make the schedule of a plan with warm-up or cosine.

    Args:
        plan: how the network is trained.
        steps_per_epoch: number of batches of an epoch.

    Returns:
        Keras schedule from the number of a step, from 0, to its learning rate; None where each epoch has one rate.
    """
    if plan.schedule == "constant" and not plan.warmup_epochs:
        return None
    warmup_steps = round(plan.warmup_epochs * steps_per_epoch)
    return keras.optimizers.schedules.CosineDecay(
        # The first step has the rate that the second one adds: a rate of 0 would waste a batch.
        plan.learning_rate / (warmup_steps + 1) if warmup_steps else plan.learning_rate,
        max(1, plan.epochs * steps_per_epoch - warmup_steps),
        alpha=0.0 if plan.schedule == "cosine" else 1.0,
        warmup_target=plan.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def compile_network(model: keras.Model, plan: TrainingPlan, schedule: Any, outputs: int) -> None:
    """Give a network its optimizer, loss and metrics.

    Args:
        model: the network; its ``trainable`` flags are set.
        plan: how it is trained.
        schedule: the return value of :func:`learning_rate_schedule`.
        outputs: number of outputs: 1 (sigmoid) or 2 (softmax).
    """
    decay = {"weight_decay": plan.weight_decay} if plan.optimizer == "adamw" else {}
    optimizer = OPTIMIZERS[plan.optimizer](plan.learning_rate if schedule is None else schedule, **decay)
    # Biases and the parameters of normalisation are vectors.
    optimizer.exclude_from_weight_decay([weight for weight in model.trainable_variables if len(weight.shape) < 2])
    loss = keras.losses.CategoricalCrossentropy if outputs == 2 else keras.losses.BinaryCrossentropy
    model.compile(
        optimizer=optimizer,
        loss=loss(label_smoothing=plan.label_smoothing),
        metrics=[
            _of_last_column(keras.metrics.BinaryAccuracy)(name="accuracy"),
            _of_last_column(keras.metrics.Precision)(name="precision"),
            _of_last_column(keras.metrics.Recall)(name="recall"),
            _of_last_column(keras.metrics.AUC)(name="auroc"),
        ],
        # Graph compilation of convolutions is slower than oneDNN's kernels on a CPU.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    # If the variables were created while TensorFlow traces the first step, it would trace the step again.
    model.optimizer.build(model.trainable_variables)
    # Keras would build loss and metrics by reading the first batch of the first call of fit, and on JAX that batch then
    # comes last in its epoch: a resumed training would see another order than an uninterrupted one.
    labels = keras.ops.zeros((1, outputs))
    model.compute_loss(y=labels, y_pred=labels)
    model.compute_metrics(None, labels, labels)
    model.reset_metrics()


def _of_last_column(base: type[Any]) -> type[Any]:
    """Restrict a metric to the last column: the probability of pneumonia, whether there are one or two outputs.

    The label of a mixture of images is that of the larger share.
    """

    class LastColumnMetric(base):  # type: ignore[misc]  # the base is chosen at run time
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            return super().update_state(keras.ops.round(y_true[..., -1:]), y_pred[..., -1:], sample_weight)

    return LastColumnMetric

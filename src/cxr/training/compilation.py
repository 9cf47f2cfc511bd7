"""What Keras needs to train a network: optimizer, learning-rate schedule, loss and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def compile_network(
    model: keras.Model,
    plan: TrainingPlan,
    schedule: Any,
    *,
    loss: Any,
    loss_weights: Mapping[str, float] | None,
    metrics: Sequence[Any] | None,
    targets: Any,
    predictions: Any,
) -> None:
    """Give a network its optimizer, loss and metrics.

    Args:
        model: the network; its ``trainable`` flags are set.
        plan: how it is trained.
        schedule: the return value of :func:`learning_rate_schedule`.
        loss: Keras loss, or a dictionary of one loss per output.
        loss_weights: weight of each output's loss; None where there is one output.
        metrics: Keras metrics of the training images beside the losses; None for none.
        targets: targets of a batch of one image, of any value.
        predictions: outputs of the network for a batch of one image, of any value.
    """
    decay = {"weight_decay": plan.weight_decay} if plan.optimizer == "adamw" else {}
    optimizer = OPTIMIZERS[plan.optimizer](plan.learning_rate if schedule is None else schedule, **decay)
    # Biases and the parameters of normalisation are vectors.
    optimizer.exclude_from_weight_decay([weight for weight in model.trainable_variables if len(weight.shape) < 2])
    model.compile(
        optimizer=optimizer,
        loss=loss,
        loss_weights=loss_weights,
        metrics=metrics,
        # Graph compilation of convolutions is slower than oneDNN's kernels on a CPU.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    # If the variables were created while TensorFlow traces the first step, it would trace the step again.
    model.optimizer.build(model.trainable_variables)
    # Keras would build loss and metrics by reading the first batch of the first call of fit, and on JAX that batch then
    # comes last in its epoch: a resumed training would see another order than an uninterrupted one.
    model.compute_loss(y=targets, y_pred=predictions)
    model.compute_metrics(None, targets, predictions)
    model.reset_metrics()

"""Combinations of training parameters that make no sense. No large package is imported here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

COMBINED_PARAMETERS = (
    "optimizer", "weight_decay", "schedule", "warmup_epochs", "epochs", "reduce_lr_patience", "mixup", "cut",
    "stop_at_accuracy", "freeze_backbone", "unfrozen_layers", "fine_tune_epochs", "fine_tune_optimizer",
)  # fmt: skip
"""Parameters whose values :func:`combination_problems` compares."""


def combination_problems(values: Mapping[str, Any]) -> list[str]:
    """Find combinations that make no sense.

    Args:
        values: value of each of :data:`COMBINED_PARAMETERS`; further ones are ignored.

    Returns:
        One sentence per problem.
    """
    optimizers = {values["optimizer"]} | ({values["fine_tune_optimizer"]} if values["fine_tune_epochs"] else set())
    problems = optimizer_problems(values, optimizers)
    if values["mixup"] and values["cut"] == "always":
        problems.append(
            "expected cut=auto or never with mixup, which mixes images and not stored activations, received "
            f"cut=always, mixup={values['mixup']:g}; change one of the two"
        )
    if values["mixup"] and values["stop_at_accuracy"] is not None:
        problems.append(
            "expected stop_at_accuracy=null with mixup, because the accuracy is measured on mixed images, received "
            f"stop_at_accuracy={values['stop_at_accuracy']:g}, mixup={values['mixup']:g}; leave one of the two out"
        )
    if not values["freeze_backbone"] and (values["unfrozen_layers"] or values["fine_tune_epochs"]):
        problems.append(
            "expected unfrozen_layers=0 and fine_tune_epochs=0 with freeze_backbone=false, which trains all layers in "
            f"one phase, received unfrozen_layers={values['unfrozen_layers']}, "
            f"fine_tune_epochs={values['fine_tune_epochs']}; leave them out"
        )
    return problems


def optimizer_problems(values: Mapping[str, Any], optimizers: Collection[str]) -> list[str]:
    """Find combinations of optimizer and learning rate that make no sense, for any kind of network.

    Args:
        values: optimizer, weight_decay, schedule, warmup_epochs, epochs and reduce_lr_patience; further ones are
            ignored.
        optimizers: names of the optimizers of all phases of the training.

    Returns:
        One sentence per problem.
    """
    problems = []
    if values["weight_decay"] and "adamw" not in optimizers:
        problems.append(
            f"expected optimizer=adamw, the only one with weight decay, received optimizer={values['optimizer']}, "
            f"weight_decay={values['weight_decay']:g}; set weight_decay to 0 or change the optimizer"
        )
    sets_each_step = values["schedule"] != "constant" or values["warmup_epochs"] > 0
    if values["reduce_lr_patience"] and sets_each_step:
        problems.append(
            "expected reduce_lr_patience=0 where warm-up or schedule set the learning rate of each step, received "
            f"reduce_lr_patience={values['reduce_lr_patience']}, schedule={values['schedule']}, "
            f"warmup_epochs={values['warmup_epochs']:g}; use one of the two ways to change the rate"
        )
    if values["warmup_epochs"] and values["warmup_epochs"] >= values["epochs"]:
        problems.append(
            f"expected warmup_epochs below epochs={values['epochs']}, received "
            f"warmup_epochs={values['warmup_epochs']:g}; lower it, or train longer"
        )
    return problems

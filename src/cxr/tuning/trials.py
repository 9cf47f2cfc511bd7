"""One trial: a training that reports its metrics to the search and frees its memory."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from optuna import Trial

from cxr.errors import ParameterError, TrainingError
from cxr.images.prepared import PreparedImages
from cxr.models.networks import build_network
from cxr.models.pretrained import backbone_layers
from cxr.training.loop import TrainingResult
from cxr.training.phases import unfreezing_problems
from cxr.training.session import TrainingSession
from cxr.training.split_data import SplitData
from cxr.training.training_settings import ClassifierTrainingSettings
from cxr.tuning.search import epoch_reporter
from cxr.tuning.space import Space, values_to_check

OUT_OF_MEMORY_ERRORS = frozenset({"ResourceExhaustedError", "OutOfMemoryError"})
"""Names of the errors that TensorFlow and PyTorch raise; JAX raises a general error whose text says it."""

HISTORY = "history"
"""Attribute of a trial: its rows of metrics, for a tracking store that cannot be reached before the trial ends."""


def run_trial(
    trial: Trial,
    settings: ClassifierTrainingSettings,
    prepared: PreparedImages,
    data: SplitData,
    folder: Path,
    on_epoch: Callable[[dict[str, float]], Any],
) -> float:
    """Train once for a trial: each epoch is reported to it, and its history is kept as an attribute.

    Args:
        trial: the trial.
        settings: what to train.
        prepared: prepared images.
        data: split of the images.
        folder: for checkpoints and activations; removed afterwards.
        on_epoch: called with the row of metrics after each epoch, before the trial may be ended early.

    Returns:
        The monitored metric of the best epoch.

    Raises:
        TrialPruned: if the trial is behind the others.
        TrainingError: as :func:`train_trial`.
    """
    report = epoch_reporter(trial, settings.monitor)
    history: list[dict[str, float]] = []

    def record(row: dict[str, float]) -> None:
        history.append(row)
        on_epoch(row)
        report(row)

    try:
        return train_trial(settings, prepared, data, folder, record).best
    finally:
        trial.set_user_attr(HISTORY, history)


def train_trial(
    settings: ClassifierTrainingSettings,
    prepared: PreparedImages,
    data: SplitData,
    folder: Path,
    on_epoch: Callable[[dict[str, float]], None],
) -> TrainingResult:
    """Train once on the training images; the validation images measure the result.

    Args:
        settings: what to train.
        prepared: prepared images.
        data: split of the images.
        folder: for checkpoints and activations; removed afterwards.
        on_epoch: called with the row of metrics after each epoch; an exception that it raises ends the training.

    Returns:
        History and best epoch.

    Raises:
        TrainingError: if the loss is no longer a finite number, or the memory is too small.
    """
    # TensorFlow warns about each further network that it traces, of which a search has many.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # The memory of the trial before is freed here and not at its end, where an error may still refer to it.
    keras.utils.clear_session()  # collects garbage
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return TrainingSession(settings, prepared, data, folder, resume=False).train(on_epoch=on_epoch)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainingError(
            f"expected enough memory, received {type(error).__name__} with batch_size={settings.batch_size}; "
            "lower batch_size or the recipe's size"
        ) from None  # the error would keep the network alive
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_networks(settings: ClassifierTrainingSettings, space: Space, recipes: list[PreparedImages]) -> None:
    """Build the network for every recipe and check the layers to unfreeze, before the first trial.

    Args:
        settings: values of all parameters that are not searched.
        space: what may be tried.
        recipes: the prepared images that may be tried.

    Raises:
        ParameterError: listing every recipe and number of layers that do not suit the network.
    """
    problems: list[str] = []
    for prepared in recipes:
        try:
            network = build_network(settings.architecture, prepared.recipe.input_shape)
        except ParameterError as error:
            problems.extend(f"recipe={prepared.recipe.name}: {problem}" for problem in error.problems)
            continue
        layers = len(backbone_layers(network))
        for count in values_to_check(space, "unfrozen_layers", settings.unfrozen_layers):
            problems.extend(unfreezing_problems(replace(settings, unfrozen_layers=int(count or 0)), layers))
    if problems:
        raise ParameterError([*dict.fromkeys(problems)])


def _is_out_of_memory(error: Exception) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in OUT_OF_MEMORY_ERRORS
        or "RESOURCE_EXHAUSTED" in str(error).partition("\n")[0]
    )

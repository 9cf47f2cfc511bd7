"""One trial: a training whose figures go to the search, and whose memory is given back."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras

from cxr.errors import ParameterError, TrainingError
from cxr.images.prepared import Prepared
from cxr.models.networks import build
from cxr.models.pretrained import backbone_layers
from cxr.training.loop import Result
from cxr.training.session import Session, Settings, unfreezing_problems
from cxr.training.training_set import SplitData
from cxr.tuning.space import Space

OUT_OF_MEMORY = frozenset({"ResourceExhaustedError", "OutOfMemoryError"})
"""Names of the errors that TensorFlow and PyTorch raise; JAX says it in the text of a general one."""


def train_trial(
    settings: Settings,
    prepared: Prepared,
    data: SplitData,
    folder: Path,
    on_epoch: Callable[[dict[str, float]], None],
) -> Result:
    """Train once, on the images of train, judged on those of validation.

    Args:
        settings: what to train.
        prepared: prepared images.
        data: split of the images.
        folder: for checkpoints and activations; removed afterwards.
        on_epoch: called with the row of figures after each epoch; what it raises ends the trial.

    Returns:
        History and best epoch.

    Raises:
        TrainingError: if the loss is no longer a number, or the memory does not suffice.
    """
    # TensorFlow warns of each further network that it translates, of which a search has many.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # What the trial before left is freed here and not at its end, where an error may still refer to it.
    keras.utils.clear_session()
    gc.collect()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return Session(settings, prepared, data, folder, resume=False).learn(on_epoch=on_epoch)
    except Exception as error:
        if not _out_of_memory(error):
            raise
        raise TrainingError(
            f"expected enough memory, received {type(error).__name__} with batch_size={settings.batch_size}; "
            "lower batch_size or the recipe's size"
        ) from None  # the error would keep the network alive
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_networks(settings: Settings, space: Space, recipes: list[Prepared]) -> None:
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
            network = build(settings.architecture, prepared.recipe.input_shape)
        except ParameterError as error:
            problems.extend(f"recipe={prepared.recipe.name}: {problem}" for problem in error.problems)
            continue
        layers = len(backbone_layers(network))
        tried = space["unfrozen_layers"].ends() if "unfrozen_layers" in space else (settings.unfrozen_layers,)
        for count in tried:
            changed = replace(settings, unfrozen_layers=int(count or 0))
            problems.extend(unfreezing_problems(changed, layers))
    if problems:
        raise ParameterError([*dict.fromkeys(problems)])


def _out_of_memory(error: Exception) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in OUT_OF_MEMORY
        or "RESOURCE_EXHAUSTED" in str(error).partition("\n")[0]
    )

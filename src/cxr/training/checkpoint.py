"""Checkpoints: everything that training needs to go on after a kill as if nothing had happened."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Arrays = list[NDArray[Any]]


@dataclass
class Progress:
    """Where training stands after an epoch.

    Attributes:
        epoch: epochs finished.
        learning_rate: rate of the next epoch.
        best: best value of the monitored figure so far, NaN before the first epoch.
        best_epoch: epoch (from 1) of the best value, 0 before the first.
        since_best: epochs since then.
        plateau_best: best value that the learning-rate schedule has seen.
        since_plateau: epochs since the schedule saw an improvement or lowered the rate.
        stopped: why training ended early, or "".
        history: one row of figures per epoch.
        run_id: tracking run that the figures go to, or None.
    """

    learning_rate: float
    epoch: int = 0
    best: float = float("nan")
    best_epoch: int = 0
    since_best: int = 0
    plateau_best: float = float("nan")
    since_plateau: int = 0
    stopped: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    run_id: str | None = None


def arrays_of(model: keras.Model) -> Arrays:
    """Copy a network's variables.

    Args:
        model: the network.

    Returns:
        One array per variable, in the network's order.
    """
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.variables]


def assign(model: keras.Model, arrays: Arrays) -> None:
    """Put copied variables back.

    Args:
        model: a network of the same architecture.
        arrays: what :func:`arrays_of` gave.
    """
    for variable, array in zip(model.variables, arrays, strict=True):
        variable.assign(array)


@dataclass(frozen=True)
class Saved:
    """The state of training after an epoch, read from a checkpoint.

    Attributes:
        progress: where training stands.
        model: variables of the network.
        optimizer: variables of the optimizer.
        best: variables of the network's best epoch.
    """

    progress: Progress
    model: Arrays
    optimizer: Arrays
    best: Arrays

    def restore(self, model: keras.Model) -> None:
        """Put network and optimizer back as they were.

        Args:
            model: freshly compiled network of the same architecture.
        """
        assign(model, self.model)
        for variable, array in zip(model.optimizer.variables, self.optimizer, strict=True):
            variable.assign(array)


@dataclass(frozen=True)
class Checkpoint:
    """A folder with the last finished epoch.

    Attributes:
        folder: where checkpoints are kept; made when the first is written.
        fingerprint: digest of everything that training depends on; a checkpoint of another is not used.
    """

    folder: Path
    fingerprint: str

    def save(self, model: keras.Model, best: Arrays, progress: Progress) -> None:
        """Write the state after an epoch; the one before is removed once this one is whole.

        Args:
            model: compiled network with its optimizer's state.
            best: variables of the best epoch.
            progress: where training stands.
        """
        final = self.folder / f"epoch-{progress.epoch:04d}"
        partial = self.folder / f".partial-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        optimizer = [np.array(keras.ops.convert_to_numpy(value)) for value in model.optimizer.variables]
        for name, arrays in (("model", arrays_of(model)), ("optimizer", optimizer), ("best", best)):
            np.savez(partial / f"{name}.npz", *arrays)
        state = {"fingerprint": self.fingerprint, "progress": asdict(progress)}
        (partial / "state.json").write_text(json.dumps(state), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for other in self.folder.glob("epoch-*"):
            if other != final:
                shutil.rmtree(other, ignore_errors=True)

    def find(self) -> Saved | None:
        """Read the last finished epoch.

        Returns:
            The saved state; None if there is nothing to resume, or it belongs to other parameters or data.
        """
        found = sorted(self.folder.glob("epoch-*"))
        if not found:
            return None
        state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
        if state["fingerprint"] != self.fingerprint:
            log.info("the checkpoint in %s belongs to other parameters or data; training starts anew", self.folder)
            return None
        arrays = {name: _load(found[-1] / f"{name}.npz") for name in ("model", "optimizer", "best")}
        return Saved(Progress(**state["progress"]), **arrays)


def _load(path: Path) -> Arrays:
    with np.load(path) as stored:
        return [stored[name] for name in stored.files]

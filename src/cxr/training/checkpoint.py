"""Checkpoints: everything that training needs to resume after a kill with the same result."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import keras
import numpy as np
from numpy.typing import NDArray

from cxr.errors import DataError
from cxr.files import whole_folder, write_text
from cxr.images.recipes import Recipe
from cxr.training.split_data import SplitData

log = logging.getLogger(__name__)

Arrays = list[NDArray[Any]]

ATTEMPT_FILE = "attempt.txt"
"""In the folder of checkpoints: what the tracking runs of all attempts at one training have in common."""


@dataclass
class TrainingProgress:
    """Where training stands after an epoch.

    Attributes:
        epoch: number of finished epochs.
        learning_rate: learning rate of the next epoch.
        best: best value of the monitored metric so far, NaN before the first epoch.
        best_epoch: epoch (from 1) of the best value, 0 before the first.
        since_best: number of epochs since then.
        plateau_best: best value that the learning-rate schedule has seen.
        since_plateau: number of epochs since the schedule saw an improvement or lowered the rate.
        stopped: why training ended early, or "".
        history: one row of metrics per epoch.
        run_id: tracking run that the metrics are logged to, or None.
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


def copy_variables(variables: Sequence[keras.Variable]) -> Arrays:
    """Copy the variables of a network or an optimizer.

    Args:
        variables: Keras variables.

    Returns:
        One array per variable, in the same order.
    """
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign_variables(variables: Sequence[keras.Variable], arrays: Arrays) -> None:
    """Write copied values back.

    Args:
        variables: variables of a network of the same architecture, or of its optimizer.
        arrays: the return value of :func:`copy_variables`.
    """
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


@dataclass(frozen=True)
class TrainingState:
    """The state of training after an epoch, read from a checkpoint.

    Attributes:
        progress: where training stands.
        model: variables of the network.
        optimizer: variables of the optimizer.
        best: variables of the network's best epoch.
    """

    progress: TrainingProgress
    model: Arrays
    optimizer: Arrays
    best: Arrays

    def restore(self, model: keras.Model, optimizer: Any) -> None:
        """Set network and optimizer to this state.

        Args:
            model: network of the same architecture.
            optimizer: its optimizer, whose variables exist.
        """
        assign_variables(model.variables, self.model)
        assign_variables(optimizer.variables, self.optimizer)

    def to_bytes(self) -> bytes:
        """Pack the state for other processes."""
        content = io.BytesIO()
        arrays = {
            f"{name} {number}": array
            for name in ("model", "optimizer", "best")
            for number, array in enumerate(getattr(self, name))
        }
        np.savez(content, progress=np.array(json.dumps(asdict(self.progress))), **arrays)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Unpack what :meth:`to_bytes` has packed.

        Args:
            content: the bytes.

        Returns:
            The state.
        """
        lists: dict[str, Arrays] = {"model": [], "optimizer": [], "best": []}
        with np.load(io.BytesIO(content)) as stored:
            progress = TrainingProgress(**json.loads(str(stored["progress"])))
            for key in stored.files[1:]:
                lists[key.partition(" ")[0]].append(stored[key])
        return cls(progress, **lists)


@dataclass(frozen=True)
class Checkpoint:
    """A folder with the last finished epoch.

    Attributes:
        folder: where checkpoints are kept; created with the first of them.
        fingerprint: digest of everything that training depends on; a checkpoint with another one is not used.
    """

    folder: Path
    fingerprint: str

    @contextmanager
    def writer(self) -> Iterator[CheckpointWriter]:
        """Write checkpoints while training goes on; at the end wait for the last one.

        Yields:
            The writer.

        Raises:
            OSError: if the last checkpoint could not be written. An error of the block itself has priority.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="checkpoint") as thread:
            writer = CheckpointWriter(self, thread)
            yield writer
            writer.wait()

    def write(self, arrays: Mapping[str, Arrays], state: str, epoch: int) -> None:
        """Write the state after an epoch, whole or not at all, then remove the checkpoint of the epoch before.

        Args:
            arrays: ``model``, ``optimizer`` and ``best``, see :class:`TrainingState`.
            state: JSON of the fingerprint and the progress.
            epoch: number of finished epochs.
        """
        epoch_folder = self.folder / f"epoch-{epoch:04d}"
        with whole_folder(epoch_folder) as partial:
            for name, variables in arrays.items():
                np.savez(partial / f"{name}.npz", *variables)
            (partial / "state.json").write_text(state, encoding="utf-8")
        for folder in self.folder.glob("epoch-*"):
            if folder != epoch_folder:
                shutil.rmtree(folder, ignore_errors=True)

    def load(self) -> TrainingState | None:
        """Read the last finished epoch.

        Returns:
            The saved state; None if there is nothing to resume, or it belongs to other parameters or data.

        Raises:
            DataError: if the checkpoint is damaged.
        """
        epoch_folders = sorted(self.folder.glob("epoch-*"))
        if not epoch_folders:
            return None
        last = epoch_folders[-1]
        try:
            state = json.loads((last / "state.json").read_text(encoding="utf-8"))
            if state["fingerprint"] != self.fingerprint:
                log.info("the checkpoint in %s belongs to other parameters or data; training starts anew", self.folder)
                return None
            arrays = {name: _read_arrays(last / f"{name}.npz") for name in ("model", "optimizer", "best")}
            return TrainingState(TrainingProgress(**state["progress"]), **arrays)
        except Exception as error:  # a damaged file raises errors of JSON, zipfile, zlib, NumPy and Python's parser
            raise DataError(
                f"expected a whole checkpoint, received {last} ({error}); restore it from a copy, or remove it to "
                "train from the beginning"
            ) from error


class CheckpointWriter:
    """Writes the checkpoint of an epoch while the next one trains."""

    def __init__(self, checkpoint: Checkpoint, thread: ThreadPoolExecutor) -> None:
        """Remember where and by whom checkpoints are written.

        Args:
            checkpoint: the folder.
            thread: one thread that writes.
        """
        self._checkpoint = checkpoint
        self._thread = thread
        self._pending: Future[None] | None = None

    def save(self, model: keras.Model, optimizer: Any, best: Arrays, progress: TrainingProgress) -> None:
        """Copy the state after an epoch, and begin to write it as soon as the checkpoint before is written.

        Args:
            model: the network.
            optimizer: its optimizer.
            best: variables of the best epoch; not changed afterwards.
            progress: where training stands.

        Raises:
            OSError: if the checkpoint before could not be written.
        """
        self.wait()
        arrays = {
            "model": copy_variables(model.variables), "optimizer": copy_variables(optimizer.variables), "best": best,
        }  # fmt: skip
        state = json.dumps({"fingerprint": self._checkpoint.fingerprint, "progress": asdict(progress)})
        self._pending = self._thread.submit(self._checkpoint.write, arrays, state, progress.epoch)

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            OSError: if it could not be written.
        """
        if self._pending is not None:
            self._pending.result()


def _read_arrays(path: Path) -> Arrays:
    with np.load(path) as stored:
        return [stored[name] for name in stored.files]


def read_attempt(folder: Path) -> str:
    """Identify the attempts at one work by the folder that a killed one leaves for the next.

    Args:
        folder: where the checkpoints of a training, or the study of a search, are kept; created if it does not exist.

    Returns:
        Hexadecimal text, the same until the folder is removed.
    """
    path = folder / ATTEMPT_FILE
    if not path.is_file():
        write_text(path, uuid4().hex)
    return path.read_text(encoding="utf-8")


def fingerprint_training(settings: Any, recipe: Recipe, data: SplitData, others: Sequence[Any]) -> str:
    """Compute the digest of everything that a training depends on. It resumes only from checkpoints with the same one.

    Args:
        settings: dataclass of the settings; where its ``weights`` name a file, the content counts too.
        recipe: recipe of the images.
        data: split of the images.
        others: further plain values.

    Returns:
        Hexadecimal SHA-256.
    """
    weights = Path(settings.weights)
    facts = [
        asdict(settings),
        hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None,
        recipe.to_dict(),
        data.data_digest,
        data.digest,
        *others,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

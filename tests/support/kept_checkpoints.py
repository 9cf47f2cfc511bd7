"""The checkpoints that a kill would have left, from a training that is not killed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path


def keep_checkpoint(folder: Path, copy: Path, epoch: int) -> Callable[[dict[str, float]], None]:
    """Copy what a kill in the epoch after this one leaves: its own checkpoint is not written yet.

    Args:
        folder: folder with the checkpoints of all phases.
        copy: where the copy is made.
        epoch: the last epoch whose checkpoint is kept.

    Returns:
        What training calls after each epoch.
    """

    def keep(row: dict[str, float]) -> None:
        if row["epoch"] == epoch + 1:
            last = f"epoch-{epoch:04d}"
            while not (checkpoints := _newest(folder)) or last not in {path.name for path in checkpoints}:
                time.sleep(0.01)  # it is written meanwhile
            for path in checkpoints:
                shutil.copytree(path, copy / path.relative_to(folder))

    return keep


def _newest(folder: Path) -> list[Path]:
    """The last checkpoint of each phase; those before may be removed at any time."""
    checkpoints = sorted([*folder.glob("epoch-????"), *folder.glob("phase-*/epoch-????")])
    return [*{path.parent: path for path in checkpoints}.values()]

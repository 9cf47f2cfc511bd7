"""Work on shards that fails on purpose, for processes that import it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from cxr.errors import DataError
from cxr.images.shards import Shard


def write_shard(folder: Path, failing: int, failures: int, shard: Shard) -> None:
    """Write one file for each try; the first tries of one shard fail.

    Args:
        folder: an existing folder.
        failing: number of the shard that fails.
        failures: tries of it that fail: the first one is killed, the others raise an error.
        shard: the shard.
    """
    tries = len(list(folder.glob(f"{shard.number}-*")))
    (folder / f"{shard.number}-{tries}").write_text(str(shard))
    if shard.number == failing and tries < failures:
        if tries:
            raise DataError("expected another disk")
        os.kill(os.getpid(), signal.SIGKILL)

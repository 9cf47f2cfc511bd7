"""Files of plain arrays: nothing in them can run code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cxr.errors import DataError


def read_arrays(path: Path, names: Sequence[str], remedy: str) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz`` file; objects, which would be unpickled, are refused.

    Args:
        path: the file.
        names: arrays that it must hold.
        remedy: what to do about a damaged one, for the error.

    Returns:
        Name to array.

    Raises:
        DataError: if the file is damaged or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"expected arrays {', '.join(names)}, received {path} ({error}); {remedy}") from error

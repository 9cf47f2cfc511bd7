"""Folders that take seconds to make: one process of a test run makes each, and all of them read it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Make a folder unless another worker of the same run has made it.

    Args:
        factory: pytest's, whose parent folder the workers of a run share.
        name: name of the folder, one per content.
        make: writes the folder, which does not exist yet.

    Returns:
        The folder. Nobody may change it.
    """
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    folder = (factory.getbasetemp().parent if is_worker else factory.getbasetemp()) / name
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            make(unfinished)
            unfinished.rename(folder)
    return folder

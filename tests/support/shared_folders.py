"""Folders that all processes of a test run share: what takes seconds to make is made by one of them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from filelock import FileLock

VARIABLE = "CXR_TESTS_FOLDER"
"""Names the folder to the processes that this one starts."""


@cache
def folder_of_run() -> Path:
    """The folder of this test run. The process that asks first, of all that start each other, makes and removes it."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="cxr-tests-")
        atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)
    return Path(os.environ[VARIABLE])


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Make a folder unless another worker of the same run has made it.

    Args:
        name: name of the folder, one per content.
        make: writes the folder, which does not exist yet.

    Returns:
        The folder. Nobody may change it.
    """
    folder = folder_of_run() / name
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            make(unfinished)
            unfinished.rename(folder)
    return folder

"""Importing large packages faster."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from threading import get_ident
from types import ModuleType


def import_without_garbage_collection(name: str) -> None:
    """Import a package for the rest of the process, without garbage collection meanwhile.

    An import makes a million objects and hardly any garbage, and Python searches all of them for it again and again,
    and once more when the process ends. Here the search starts after the import and never looks at what it made.
    Measured in seconds of CPU: Keras with TensorFlow 5.6 to 3.3, Great Expectations 4.1 to 2.4, MLflow 1.7 to 1.4.

    Args:
        name: the package.

    Raises:
        ImportError: if the package is not installed.
    """
    if name in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module(name)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def packages_hidden(*names: str) -> Iterator[None]:
    """Let imports of this thread fail for some packages, so that a package that can do without them loads faster.

    What is imported already is still found. After the block everything is found again.

    Args:
        names: the packages.
    """
    finder = _HidingFinder(frozenset(names), get_ident())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _HidingFinder(MetaPathFinder):
    """Says that packages are not installed, to one thread alone: others may import them at the same time."""

    def __init__(self, names: frozenset[str], thread: int) -> None:
        self._names = names
        self._thread = thread

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name in self._names and get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}: it is hidden for this import", name=name)

"""Importing the large packages faster: the search for garbage waits, and what is not needed is left out."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module


def load(name: str, *, without: Sequence[str] = ()) -> None:
    """Import a package for the rest of the process.

    Importing makes a million objects and hardly any garbage; Python looks through all of them again and again for it,
    and once more when the process ends. Searching afterwards, and never again among them, saves a third of the time.

    Args:
        name: the package.
        without: packages that it would import if they are installed, and does without; they can be imported later. It
            gets them all the same in a process of several threads, another of which may want them meanwhile.

    Raises:
        ImportError: if the package is not there, or cannot do without one of those.
    """
    if name in sys.modules:
        return
    searching = gc.isenabled()
    gc.disable()
    try:
        with _hidden(without):
            import_module(name)
        gc.freeze()
    finally:
        if searching:
            gc.enable()


@contextmanager
def _hidden(names: Sequence[str]) -> Iterator[None]:
    """Let packages that are not imported yet look as if they were not installed."""
    alone = threading.active_count() == 1
    hidden = [name for name in names if alone and name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is the documented way
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]

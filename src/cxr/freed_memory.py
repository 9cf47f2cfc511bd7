"""Memory of large arrays: a process that trains, evaluates or draws keeps what it frees for its next arrays."""

from __future__ import annotations

import ctypes

_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8
"""Numbers of glibc's ``M_MMAP_MAX``, ``M_TRIM_THRESHOLD`` and ``M_ARENA_MAX``."""
_NEVER = -1


def keep_freed_memory() -> None:
    """Let the C library reuse the memory of large arrays instead of returning it to the system.

    Otherwise glibc returns it and asks for it again in each step of a training, and the system clears each page before
    it hands it out. A small network on a CPU spent 40 % of the processor time of an epoch on that.

    Call it before the process starts threads: a thread that has its own part of the memory (an arena) by then returns
    it as before. From then on all threads share one. Afterwards the memory of the process stays at its peak, so this is
    for processes that end. Other C libraries stay as they are.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_ARENA_MAX, 1)
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)

"""Memory of large arrays: a process that trains or evaluates keeps what it frees for its next arrays."""

from __future__ import annotations

import ctypes

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""Numbers of glibc's ``M_MMAP_MAX`` and ``M_TRIM_THRESHOLD``."""
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the C library reuse the memory of large arrays instead of returning it to the system.

    Otherwise glibc returns it and asks for it again in each step of a training, and the system clears each page before
    it hands it out. A small network on a CPU spent 40 % of the processor time of an epoch on that. Afterwards the
    memory of the process stays at its peak, so this is for processes that end. Other C libraries stay as they are.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, _LARGEST)

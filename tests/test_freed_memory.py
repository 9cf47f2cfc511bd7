"""A process that keeps freed memory asks the system once for the pages of its large arrays."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# Four arrays of 32 MiB at once, and again: more than what glibc ever keeps by itself.
CODE = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from cxr.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
make_and_free = lambda number: len([np.ones(2**22) for _ in range(4)])
with ThreadPoolExecutor(1) as thread:
    run = thread.map if sys.argv[2] == "thread" else map
    list(run(make_and_free, range(2)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    list(run(make_and_free, range(3)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str, place: str) -> int:
    """Count the pages that twelve arrays of 32 MiB took from the system after the first ones."""
    process = subprocess.run([sys.executable, "-c", CODE, mode, place], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    return int(process.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has this setting")
@pytest.mark.parametrize("place", ["main", "thread"])
def test_large_arrays_reuse_the_memory_of_freed_ones(place: str) -> None:
    assert page_faults("keep", place) < 100 < page_faults("return", place)

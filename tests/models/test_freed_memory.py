"""A process that keeps freed memory asks the system once for the pages of its large arrays."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# Arrays of 64 MiB, larger than what glibc ever keeps by itself, one after the other.
CODE = """
import resource, sys
import numpy as np
from cxr.models.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    """Count the pages that five arrays of 64 MiB took from the system after a first one."""
    process = subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr
    return int(process.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has this setting")
def test_large_arrays_reuse_the_memory_of_freed_ones() -> None:
    assert page_faults("keep") < 100 < page_faults("return")

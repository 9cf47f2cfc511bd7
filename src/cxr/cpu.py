"""The CPU cores that this process may use, and their division among processes."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores(quota_file: Path = _CGROUP_QUOTA) -> int:
    """Count the cores. In a container its CPU limit counts, not the number of cores of the node.

    Args:
        quota_file: file with the limit of a control group, ``"MICROSECONDS PERIOD"`` or ``"max PERIOD"``.

    Returns:
        Number of cores, at least 1.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS does not have it
        cores = os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def thread_limits(threads: int) -> dict[str, str]:
    """Environment variables that limit the threads of a process that computes.

    Args:
        threads: number of threads; at least 1 is used.

    Returns:
        Variables for TensorFlow, PyTorch and the libraries below them.
    """
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {name: str(max(1, threads)) for name in names}

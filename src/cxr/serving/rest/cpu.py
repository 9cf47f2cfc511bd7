"""Processor cores that this process may use, and their division among the workers of a service."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cores(quota: Path = _QUOTA) -> int:
    """Count the cores; a container's share counts, not its node's.

    Args:
        quota: file with the share of a control group, ``"MICROSECONDS PERIOD"`` or ``"max PERIOD"``.

    Returns:
        Number of cores, at least 1.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    try:
        share, period = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, round(int(share) / int(period))))
    except (OSError, ValueError):
        return cores


def divide(threads: int) -> dict[str, str]:
    """Environment in which a process that computes takes no more than its part of the cores.

    Args:
        threads: threads of its part.

    Returns:
        Variables for TensorFlow, PyTorch and what they are built on.
    """
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {name: str(max(1, threads)) for name in names}

"""How many cores a process may use."""

from __future__ import annotations

import os
from pathlib import Path

from cxr.cpu import available_cores


def test_a_container_counts_its_cpu_limit(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("max 100000\n")
    cores = available_cores(quota)
    assert cores == len(os.sched_getaffinity(0))
    quota.write_text("100000 100000\n")
    assert available_cores(quota) == 1
    quota.write_text("50000 100000\n")
    assert available_cores(quota) == 1, "never less than one"
    assert available_cores(tmp_path / "missing") == cores

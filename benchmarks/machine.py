"""The processor that figures were measured on."""

from __future__ import annotations

from pathlib import Path

from cxr.cpu import available_cores
from cxr.training.device import processor_name

CPU_INFO = Path("/proc/cpuinfo")
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
"""Flags of a processor to the names of its vector instructions, the widest first."""


def describe_machine() -> str:
    """Name the processor, its cores, and its widest vector instructions, which a virtual machine may hide.

    The same network takes longer with narrower ones, so that figures of two machines with one name may differ.

    Returns:
        For example ``AMD EPYC with AVX2, 2 cores``.
    """
    flags = CPU_INFO.read_text(encoding="utf-8").split() if CPU_INFO.exists() else []
    vectors = next((f" with {name}" for flag, name in VECTORS.items() if flag in flags), "")
    return f"{processor_name()}{vectors}, {available_cores()} cores"

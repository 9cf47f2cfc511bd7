"""Runs code in a process in which NumPy, OpenCV and libjpeg-turbo use none of the vector instructions they choose."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cv2
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

_REPORT = """
import json
import cv2
from numpy._core._multiarray_umath import __cpu_features__
print(json.dumps([cv2.getCPUFeaturesLine(), [name for name, on in __cpu_features__.items() if on]]))
"""


def run_without_vector_instructions(code: str, *arguments: str) -> str:
    """Run Python code in a process of its own, with the vector instructions off.

    Args:
        code: the code; what it prints is returned.
        arguments: its ``sys.argv[1:]``.

    Returns:
        What it printed.

    Raises:
        RuntimeError: if an instruction set stayed on.
    """
    opencv = [name.strip("*?") for name in cv2.getCPUFeaturesLine().split() if name.startswith("*")]
    numpy = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    environment = {
        **os.environ,
        "OPENCV_CPU_DISABLE": ",".join(opencv),
        "OPENCV_IPP": "disabled",
        "JSIMD_FORCENONE": "1",  # read by libjpeg-turbo
        "NPY_DISABLE_CPU_FEATURES": " ".join(numpy),
    }
    command = [sys.executable, "-c", code + _REPORT, *arguments]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    printed, _, report = output.rstrip("\n").rpartition("\n")
    opencv_line, numpy_on = json.loads(report)
    # OpenCV marks what it chooses at run time with a star, and what is off with a question mark.
    still_on = [name for name in opencv_line.split() if name.startswith("*") and not name.endswith("?")]
    still_on += [name for name in numpy if name in numpy_on]
    if still_on:
        raise RuntimeError(f"expected no vector instructions, still on={still_on}")
    return printed

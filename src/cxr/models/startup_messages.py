"""What TensorFlow writes to the terminal while it loads, before it has read its log level."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABOUT_PROCESSORS = (
    rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} .*\b(port|cpu_feature_guard)\.cc:\d+\]"
)
ABOUT_GPUS = rb"[IWE]\d{4} .*\b(cudart_stub|cuda_platform)\.cc:\d+\]"
"""Beginnings of the lines; the second kind says nothing on a machine that has no NVIDIA GPU."""
GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Present where a driver of NVIDIA is loaded; the second one in Windows's Linux."""
_STDERR = 2


@contextmanager
def without_startup_messages() -> Iterator[None]:
    """Leave out the lines that say nothing to the user; all others are written when the block ends.

    Whoever sets ``TF_CPP_MIN_LOG_LEVEL`` to 0 or 1 sees all lines.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "") in ("0", "1"):
        yield
        return
    has_gpu = any(path.exists() for path in GPU_FILES)
    harmless = re.compile(ABOUT_PROCESSORS if has_gpu else ABOUT_PROCESSORS + rb"|" + ABOUT_GPUS)
    sys.stderr.flush()
    try:
        terminal = os.dup(_STDERR)
    except OSError:  # a service may have closed it
        yield
        return
    with tempfile.TemporaryFile() as lines:
        os.dup2(lines.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, _STDERR)
            os.close(terminal)
            lines.seek(0)
            for line in lines:
                if not harmless.match(line):
                    os.write(_STDERR, line)

"""Loading of Keras with its backend, without the backend's greetings on the terminal."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from importlib import import_module

GREETINGS = re.compile(r"^(I0000 |WARNING: All log messages before absl)")
"""Lines that TensorFlow's libraries write while they load, whatever their log level is set to."""


def load_keras() -> None:
    """Import Keras and its backend; of what they write to stderr, greetings are dropped and the rest is passed on.

    The libraries write to the file descriptor itself, so that Python's own redirection does not reach them.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as written:
        terminal = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            import_module("keras")
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            written.seek(0)
            for line in written.read().decode(errors="replace").splitlines(keepends=True):
                if not GREETINGS.match(line):
                    sys.stderr.write(line)

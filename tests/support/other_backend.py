"""Runs Python on another Keras backend, where importing TensorFlow fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.support_path import support_path

WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "tensorflow" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


def run_on_backend(
    backend: str, folder: Path, arguments: list[str], **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python on another backend, where importing TensorFlow fails and the support modules can be imported."""
    blocked = folder / "blocked"
    blocked.mkdir(exist_ok=True)
    (blocked / "sitecustomize.py").write_text(WITHOUT_TENSORFLOW)
    # Each operation runs only a few times: optimising its compilation would take longer than it saves.
    fast_compilation = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment = os.environ | fast_compilation | {"KERAS_BACKEND": backend} | support_path(blocked) | variables
    process = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    return process

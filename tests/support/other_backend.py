"""Python on another Keras backend, where importing TensorFlow fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "tensorflow" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


def elsewhere(backend: str, folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Python on another backend, where importing TensorFlow fails and the helpers of the tests are at hand."""
    blocked = folder / "blocked"
    blocked.mkdir(exist_ok=True)
    (blocked / "sitecustomize.py").write_text(WITHOUT_TENSORFLOW)
    path = os.pathsep.join(
        [str(blocked), str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    # Each operation runs once or a few times: compiling it well would take longer than it saves.
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment = {**os.environ, **quick, "KERAS_BACKEND": backend, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return done

"""Keras is imported with a quiet TensorFlow, and nothing that its backend writes is lost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAKE_KERAS = """
import os, sys
os.write(2, b"something is wrong\\n")
print(os.environ["TF_CPP_MIN_LOG_LEVEL"], file=sys.stderr)
"""

KERAS_WITH_EXTRAS = """
import sys
try:
    import sklearn
except ImportError:
    print("without sklearn", file=sys.stderr)
"""


def stderr_of_loading(folder, keras=FAKE_KERAS, **environment):
    (folder / "keras.py").write_text(keras)
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from cxr.models.backend import load_keras; load_keras()"
    inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    process = subprocess.run(
        [sys.executable, "-c", f"{code}; print('after', file=sys.stderr)"],
        env={**inherited, **environment}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return process.stderr


def test_keras_is_imported_with_warnings_only_and_stderr_stays_as_it_is(tmp_path):
    assert stderr_of_loading(tmp_path) == "something is wrong\n2\nafter\n"


def test_a_log_level_of_the_environment_is_kept(tmp_path):
    assert stderr_of_loading(tmp_path, TF_CPP_MIN_LOG_LEVEL="3") == "something is wrong\n3\nafter\n"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_keras_is_imported_without_what_only_its_unused_parts_need(tmp_path, backend):
    assert stderr_of_loading(tmp_path, KERAS_WITH_EXTRAS, KERAS_BACKEND=backend) == "without sklearn\nafter\n"

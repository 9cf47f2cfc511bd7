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
try:
    import sklearn
except ImportError:
    print("without sklearn", file=sys.stderr)
"""


def lines_of_loading(folder, **environment):
    """What a process that loads Keras writes, to the line after."""
    (folder / "keras.py").write_text(FAKE_KERAS)
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from cxr.models.backend import load_keras; load_keras()"
    inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    process = subprocess.run(
        [sys.executable, "-c", f"{code}; print('after', file=sys.stderr)"],
        env={**inherited, **environment}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return process.stderr.splitlines()


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """With TensorFlow, which takes seconds to import."""
    return lines_of_loading(tmp_path_factory.mktemp("keras"), KERAS_BACKEND="tensorflow")


def test_keras_is_imported_with_warnings_only_and_stderr_stays_as_it_is(lines):
    assert [lines[0], lines[1], lines[-1]] == ["something is wrong", "2", "after"]


def test_keras_is_imported_without_what_only_its_unused_parts_need(lines):
    assert lines[2:] == ["without sklearn", "after"]


def test_another_backend_and_the_log_level_of_the_environment_are_kept(tmp_path):
    lines = lines_of_loading(tmp_path, KERAS_BACKEND="jax", TF_CPP_MIN_LOG_LEVEL="3")
    assert lines == ["something is wrong", "3", "without sklearn", "after"]

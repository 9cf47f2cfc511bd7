"""Keras loads without greetings, and what else its backend writes is not lost."""

from __future__ import annotations

import subprocess
import sys


def stderr(code):
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return answer.stderr


def test_loading_keras_writes_no_greetings_and_leaves_stderr_open():
    text = stderr(
        "import sys; from cxr.models.backend import load_keras; load_keras(); print('after', file=sys.stderr)"
    )
    assert text == "after\n"


def test_other_lines_written_while_loading_are_passed_on(tmp_path):
    (tmp_path / "keras.py").write_text(
        "import os; os.write(2, b'I0000 00:00: a greeting\\nsomething is wrong\\n'); os.write(2, b'E0000 an error\\n')"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from cxr.models.backend import load_keras; load_keras()"
    assert stderr(code) == "something is wrong\nE0000 an error\n"

"""The terminal shows no line of TensorFlow that says nothing, and every other line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cxr.models.startup_messages import GPU_FILES, without_startup_messages

USE_NETWORK = """
from cxr.models.backend import load_keras
load_keras()
import keras
print(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).count_params())
"""


def run(code: str, level: str | None) -> tuple[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return result.stdout, result.stderr


@pytest.mark.skipif(any(path.exists() for path in GPU_FILES), reason="a machine with a GPU may say more")
def test_a_network_is_made_without_a_line_of_tensorflow() -> None:
    assert run(USE_NETWORK, None) == ("3\n", "")


def test_whoever_asks_for_the_lines_sees_them() -> None:
    assert "I0000" in run(USE_NETWORK, "0")[1]


def test_other_lines_appear_in_their_order_also_when_the_import_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportError), without_startup_messages():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        os.write(2, b"E0000 00:00:1 7 driver.cc:52] the driver is too old\n")
        os.write(2, b"I0000 00:00:1 7 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"a warning of a package\n")
        raise ImportError
    os.write(2, b"afterwards\n")
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["E0000 00:00:1 7 driver.cc:52] the driver is too old", "a warning of a package", "afterwards"]

"""Compose files as compose reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

COMMANDS = (("docker", "compose"), ("podman-compose",))


def read_compose_file(file: Path, *options: str | Path, **variables: str) -> dict[str, Any]:
    """Let compose check a file and put in the values of variables; skips the test where there is no compose."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **variables}
    command = next((words for words in COMMANDS if _works(words, environment)), None)
    if command is None:
        pytest.skip("neither docker with its compose plugin nor podman with podman-compose is installed")
    answer = subprocess.run(
        [*command, *options, "--file", file, "config"], capture_output=True, text=True, env=environment
    )
    assert answer.returncode == 0, answer.stderr
    assert "${" not in answer.stdout
    return dict(yaml.safe_load(answer.stdout))


def _works(words: tuple[str, ...], environment: dict[str, str]) -> bool:
    if shutil.which(words[0], path=environment["PATH"]) is None:
        return False
    return subprocess.run([*words, "version"], capture_output=True, env=environment).returncode == 0

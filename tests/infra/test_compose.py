"""The compose file is one that compose takes, with the settings of a new machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.kustomize import ROOT

COMMANDS = (("docker", "compose"), ("podman-compose",))


def test_compose_reads_the_file_with_the_settings_of_a_new_machine(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = next((words for words in COMMANDS if _works(words, path)), None)
    if command is None:
        pytest.skip("neither docker with its compose plugin nor podman with podman-compose is installed")
    settings = tmp_path / "settings"
    subprocess.run([ROOT / "infra" / "new_env.sh", settings], check=True)
    answer = subprocess.run(
        [*command, "--env-file", settings, "--file", ROOT / "infra" / "compose.yaml", "config"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        cwd=tmp_path,
    )
    assert answer.returncode == 0, answer.stderr
    services = yaml.safe_load(answer.stdout)["services"]
    assert set(services) == {"postgres", "s3", "bucket", "mlflow"}
    assert "${" not in answer.stdout
    assert services["mlflow"]["environment"]["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://mlflow"


def _works(words: tuple[str, ...], path: str) -> bool:
    if shutil.which(words[0], path=path) is None:
        return False
    return subprocess.run([*words, "version"], capture_output=True, env={**os.environ, "PATH": path}).returncode == 0

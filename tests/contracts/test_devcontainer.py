"""The devcontainer names commands and ports of this project, and no secrets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def container(repository: Path) -> dict[str, Any]:
    return json.loads((repository / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))


def test_it_installs_with_a_target_of_the_makefile(container: dict[str, Any], repository: Path) -> None:
    targets = set(re.findall(r"^([\w./-]+):", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    command, *words = container["postCreateCommand"].split()
    assert command == "make"
    assert words and set(words) <= targets


def test_it_forwards_the_ports_of_the_page_the_service_and_mlflow(container: dict[str, Any], repository: Path) -> None:
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    mlflow = re.search(r"mlflow ui .*--port (\d+)", (repository / "Makefile").read_text(encoding="utf-8"))
    assert mlflow
    ports = {params["app"]["port"], params["serve"]["port"], int(mlflow[1])}
    assert set(container["forwardPorts"]) == ports
    assert {int(port) for port in container["portsAttributes"]} == ports


def test_it_has_a_python_that_the_project_supports(container: dict[str, Any], repository: Path) -> None:
    version = re.search(r"python:(3\.\d+)-", container["image"])
    assert version
    tested = (repository / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert f'python-version: "{version[1]}"' in tested


def test_it_takes_no_secrets_from_the_machine(container: dict[str, Any]) -> None:
    text = json.dumps(container)
    assert "localEnv" not in text
    assert not re.search(r"token|password|secret", text, re.IGNORECASE)

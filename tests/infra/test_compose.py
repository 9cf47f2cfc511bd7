"""The compose file is one that compose takes, with the settings of a new machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.compose import read_compose_file
from support.kustomize import ROOT


def test_compose_reads_the_file_with_the_settings_of_a_new_machine(tmp_path: Path) -> None:
    settings = tmp_path / "settings"
    subprocess.run([ROOT / "infra" / "new_env.sh", settings], check=True)
    services = read_compose_file(ROOT / "infra" / "compose.yaml", "--env-file", settings)["services"]
    assert set(services) == {"postgres", "s3", "bucket", "mlflow"}
    assert services["mlflow"]["environment"]["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://mlflow"

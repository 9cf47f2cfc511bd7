"""Runs on this machine, without an engine: what is refused before anything starts, and the server beside a run."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from cxr.cli.main import main
from cxr.errors import ParameterError
from cxr.kubeflow.actions.run import changed
from cxr.kubeflow.local_tracking_server import serving

SECTIONS = {"fetch": {"source": "kaggle"}, "models": {"one": {"recipe": "r"}, "two": {"recipe": "s"}}, "transfer": {}}


def test_other_values_stand_in_a_copy() -> None:
    found = changed(SECTIONS, ["two"], {"fetch.source": "phantom", "models.two.epochs": 1, "fetch.refresh": True})
    assert found["models"] == {"two": {"recipe": "s", "epochs": 1}}
    assert found["fetch"] == {"source": "phantom", "refresh": True}
    assert SECTIONS["fetch"] == {"source": "kaggle"} and list(SECTIONS["models"]) == ["one", "two"]


def test_sections_that_share_an_anchor_are_changed_apart() -> None:
    shared = {"resamples": 2000}
    found = changed({"evaluate": shared, "promotion": shared}, [], {"evaluate.resamples": 100})
    assert (found["evaluate"]["resamples"], found["promotion"]["resamples"]) == (100, 2000)


def test_all_unknown_names_are_told_together() -> None:
    with pytest.raises(ParameterError) as caught:
        changed(SECTIONS, ["three"], {"fetsch.source": "phantom", "seed": 1})
    said = str(caught.value)
    assert "expected one of the models one, two; received 'three'" in said
    assert "received fetsch.source='phantom'" in said and "received seed=1" in said


def test_no_engine_ends_with_status_2_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"fetch": {"source": "phantom"}}))
    status = main(["kubeflow", "run", "--params", str(params), "--runs", str(tmp_path / "runs")])
    assert status == 2
    assert "cxr kubeflow run: expected docker, or podman with its socket, to answer" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_server_answers_while_a_run_goes_on_and_keeps_its_store(tmp_path: Path) -> None:
    with serving(tmp_path / "mlflow") as uri:
        request = urllib.request.Request(
            f"{uri}/api/2.0/mlflow/experiments/create",
            data=json.dumps({"name": "trial"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["experiment_id"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{uri}/health", timeout=5)
    assert (tmp_path / "mlflow" / "mlflow.db").stat().st_size > 0

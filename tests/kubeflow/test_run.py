"""Runs on this machine without a container engine: errors before the start, and the tracking server of a run."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from cxr.cli.main import main
from cxr.errors import ParameterError
from cxr.kubeflow.actions.run import local_parameters
from cxr.kubeflow.local_tracking_server import run_tracking_server
from cxr.steps.parameters import override_parameters

SECTIONS = {"fetch": {"source": "kaggle"}, "models": {"one": {"recipe": "r"}, "two": {"recipe": "s"}}, "transfer": {}}


def test_values_are_overridden_in_a_copy() -> None:
    copy = override_parameters(
        SECTIONS, ["two"], {"fetch.source": "phantom", "models.two.epochs": 1, "fetch.refresh": True}
    )
    assert copy["models"] == {"two": {"recipe": "s", "epochs": 1}}
    assert copy["fetch"] == {"source": "phantom", "refresh": True}
    assert SECTIONS["fetch"] == {"source": "kaggle"} and list(SECTIONS["models"]) == ["one", "two"]


def test_sections_that_share_an_anchor_are_overridden_separately() -> None:
    shared = {"resamples": 2000}
    copy = override_parameters({"evaluate": shared, "promotion": shared}, [], {"evaluate.resamples": 100})
    assert (copy["evaluate"]["resamples"], copy["promotion"]["resamples"]) == (100, 2000)


def test_all_unknown_names_are_reported_together() -> None:
    with pytest.raises(ParameterError) as caught:
        override_parameters(SECTIONS, ["three"], {"fetsch.source": "phantom", "seed": 1})
    message = str(caught.value)
    assert "expected one of the models one, two; received 'three'" in message
    assert "received fetsch.source='phantom'" in message and "received seed=1" in message


@pytest.mark.parametrize(("changes", "retries"), [({}, 0), ({"containers.retries.count": 1}, 1)])
def test_a_step_is_tried_again_on_this_machine_only_if_the_run_asks_for_it(
    repository: Path, changes: dict[str, object], retries: int
) -> None:
    sections = yaml.safe_load((repository / "params.yaml").read_text())
    expected = {**sections["containers"]["retries"], "count": retries}
    assert expected != sections["containers"]["retries"]
    assert local_parameters(sections, [], changes)["containers"]["retries"] == expected


def test_a_missing_engine_ends_with_status_2_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({"fetch": {"source": "phantom"}}))
    status = main(["kubeflow", "run", "--params", str(params), "--runs", str(tmp_path / "runs")])
    assert status == 2
    assert "cxr kubeflow run: expected docker, or podman with its socket, to respond" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_tracking_server_responds_during_a_run_and_keeps_its_store(tmp_path: Path) -> None:
    with run_tracking_server(tmp_path / "mlflow") as uri:
        request = urllib.request.Request(
            f"{uri}/api/2.0/mlflow/experiments/create",
            data=json.dumps({"name": "trial"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.load(response)["experiment_id"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{uri}/health", timeout=5)
    assert (tmp_path / "mlflow" / "mlflow.db").stat().st_size > 0

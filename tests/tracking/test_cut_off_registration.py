"""Registrations that are cut off, and versions whose files are gone: no version without its model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion

from cxr.errors import RegistryError
from cxr.inference.predictor import Predictor
from cxr.tracking import log_evaluation
from cxr.tracking.artifacts import absent_files, fetch_model
from cxr.tracking.connection import client
from cxr.tracking.versions import candidates, ensure_version
from support.loopback import Gate, MlflowServer
from support.model_folders import Folders, write_models

ANOTHER_PROCESS = """
import sys
from pathlib import Path
from cxr.tracking.connection import client
from cxr.tracking.versions import candidates, ensure_version
models, evaluations, uri, name, run_id = sys.argv[1:]
(one,) = candidates(Path(models), Path(evaluations), [])
version, added = ensure_version(client(uri), uri, name, one, run_id)
print(version.version, added)
"""


def begin(folders: Folders, uri: str, name: str) -> str:
    """Make the registered model and the run, which a version is of."""
    client(uri).create_registered_model(name)
    run_id = log_evaluation(
        folders.models / "three_block", folders.evaluations / "three_block", uri=uri, experiment=name
    )
    assert run_id is not None
    return run_id


def ensure(folders: Folders, uri: str, name: str, run_id: str) -> tuple[ModelVersion, bool]:
    (one,) = candidates(folders.models, folders.evaluations, [])
    return ensure_version(client(uri), uri, name, one, run_id)


def command(folders: Folders, uri: str, name: str, run_id: str) -> list[str]:
    paths = (str(folders.models), str(folders.evaluations))
    return [sys.executable, "-c", ANOTHER_PROCESS, *paths, uri, name, run_id]


def versions(uri: str, name: str) -> list[ModelVersion]:
    return list(client(uri).search_model_versions(f"name = '{name}'"))


def model_id(version: ModelVersion) -> str:
    """The MLflow model behind a version, which the store of versions does not keep."""
    return Path(version.source).parent.name


def states(uri: str, name: str) -> list[str]:
    """States of the MLflow models that were begun."""
    where = client(uri).get_experiment_by_name(name).experiment_id
    return sorted(str(one.status.value) for one in client(uri).search_logged_models([where]))


@pytest.mark.parametrize("sent", [3_000, 20_000])
def test_an_upload_cut_off_leaves_no_version_and_the_next_registration_is_whole(
    server: MlflowServer, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folders, name = write_models(tmp_path), f"cut after {sent}"
    run_id = begin(folders, server.uri, name)
    gate.after(sent)
    with pytest.raises(RegistryError, match="run the step again"):
        ensure(folders, gate.uri, name, run_id)
    assert gate.mode == "shut"
    assert versions(server.uri, name) == []
    assert "READY" not in states(server.uri, name)

    gate.open()
    version, added = ensure(folders, gate.uri, name, run_id)
    assert added and absent_files(server.uri, version) == ()
    assert states(server.uri, name).count("READY") == 1
    assert "PENDING" not in states(server.uri, name)
    (tmp_path / "copy").mkdir()
    Predictor.load(fetch_model(server.uri, version, tmp_path / "copy"))
    assert ensure(folders, gate.uri, name, run_id) == (version, False)


def test_a_registration_killed_while_it_uploads_leaves_no_version(
    server: MlflowServer, gate: Gate, tmp_path: Path
) -> None:
    folders, name = write_models(tmp_path), "registration killed"
    run_id = begin(folders, server.uri, name)
    gate.after(60_000, "held")
    process = subprocess.Popen(command(folders, gate.uri, name, run_id), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while gate.mode != "held" and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert gate.mode == "held", errors
    assert versions(server.uri, name) == [] and states(server.uri, name) == ["PENDING"]
    version, added = ensure(folders, server.uri, name, run_id)
    assert added and absent_files(server.uri, version) == ()
    assert states(server.uri, name) == ["FAILED", "READY"]


def test_two_registrations_at_once_make_one_version(server: MlflowServer, tmp_path: Path) -> None:
    folders, name = write_models(tmp_path), "registered at once"
    run_id = begin(folders, server.uri, name)
    running = [
        subprocess.Popen(
            command(folders, server.uri, name, run_id), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=400) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    (version,) = versions(server.uri, name)
    assert sorted(out.split() for out, _ in ended) == [[version.version, "False"], [version.version, "True"]]
    assert absent_files(server.uri, version) == ()


@pytest.mark.parametrize("gone", ["model.keras", "card.json", "everything"])
def test_a_version_whose_files_are_gone_is_told_never_served_and_made_again(
    server: MlflowServer, tmp_path: Path, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    folders, name = write_models(tmp_path), f"gone {gone}"
    run_id = begin(folders, server.uri, name)
    old, _ = ensure(folders, server.uri, name, run_id)
    stored = [path for path in (server.folder / "files").rglob("*") if path.is_file() and model_id(old) in path.parts]
    assert len(stored) > 10
    for path in stored:
        if gone in {path.name, "everything"}:
            path.unlink()
    lost = "card.json" if gone == "everything" else gone
    assert absent_files(server.uri, old) == (lost,)
    (tmp_path / "copy").mkdir()
    with pytest.raises(RegistryError, match=rf"without {lost}: it cannot answer"):
        fetch_model(server.uri, old, tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []

    new, added = ensure(folders, server.uri, name, run_id)
    assert (added, new.version) == (True, "2")
    assert f"version 1 of {name} has lost {lost}" in caplog.text
    assert absent_files(server.uri, new) == ()
    assert ensure(folders, server.uri, name, run_id) == (new, False)


def test_a_local_store_whose_files_are_gone_is_told(uri: str, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    run_id = begin(folders, uri, "local")
    version, _ = ensure(folders, uri, "local", run_id)
    assert absent_files(uri, version) == ()
    for path in (tmp_path / "mlruns").rglob("artifacts/artifact/model.keras"):
        path.unlink()
    assert absent_files(uri, version) == ("model.keras",)


def test_a_store_that_does_not_answer_is_not_a_version_without_files(
    server: MlflowServer, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folders, name = write_models(tmp_path), "not answering"
    version, _ = ensure(folders, server.uri, name, begin(folders, server.uri, name))
    gate.shut()
    with pytest.raises(RegistryError, match=r"expected an MLflow store that answers.*ends the connection"):
        absent_files(gate.uri, version)


def test_a_version_that_was_made_just_before_the_kill_becomes_ready(server: MlflowServer, tmp_path: Path) -> None:
    folders, name = write_models(tmp_path), "last words"
    run_id = begin(folders, server.uri, name)
    version, _ = ensure(folders, server.uri, name, run_id)
    client(server.uri).finalize_logged_model(model_id(version), "PENDING")
    assert states(server.uri, name) == ["PENDING"]
    assert ensure(folders, server.uri, name, run_id) == (version, False)
    assert states(server.uri, name) == ["READY"]


@pytest.mark.parametrize("harm", ["lost", "shortened"])
def test_a_store_that_keeps_less_than_it_was_given_is_refused(
    server: MlflowServer, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    folders, name = write_models(tmp_path), f"keeps less, {harm}"
    run_id = begin(folders, server.uri, name)
    upload = MlflowClient.log_model_artifacts

    def harmed(connected: MlflowClient, model: str, folder: str) -> None:
        """A disk that fails after it has said that all is well."""
        upload(connected, model, folder)
        (stored,) = [path for path in (server.folder / "files").rglob("model.keras") if model in path.parts]
        if harm == "lost":
            stored.unlink()
        else:
            stored.write_bytes(stored.read_bytes()[:1000])

    with (
        monkeypatch.context() as patched,
        pytest.raises(RegistryError, match=r"without artifacts/artifact/model\.keras"),
    ):
        patched.setattr(MlflowClient, "log_model_artifacts", harmed)
        ensure(folders, server.uri, name, run_id)
    assert versions(server.uri, name) == []
    assert ensure(folders, server.uri, name, run_id)[1]

"""No version without its model: registrations that are cut off, and versions whose files are gone."""

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
from cxr.promotion.candidates import RunFolders, find_candidates
from cxr.tracking.finished_run import log_evaluation
from cxr.tracking.registry_reader import fetch_model, missing_files
from cxr.tracking.store import Store
from cxr.tracking.versions import ensure_version
from support.loopback import Gate, MlflowServer
from support.model_folders import ModelFolders, write_models

OTHER_PROCESS = """
import sys
from pathlib import Path
from cxr.tracking.store import Store
from cxr.promotion.candidates import RunFolders, find_candidates
from cxr.tracking.versions import ensure_version
models, evaluations, uri, name, run_id = sys.argv[1:]
(candidate,) = find_candidates(RunFolders(Path(models), Path(evaluations), Path("splits")))
version, is_new = ensure_version(Store(uri), name, candidate, run_id)
print(version.version, is_new)
"""


def begin(folders: ModelFolders, store: Store, name: str) -> str:
    """Create the registered model and the run that a version belongs to."""
    store.client.create_registered_model(name)
    return log_evaluation(store, folders.models / "three_block", folders.evaluations / "three_block", experiment=name)


def ensure(folders: ModelFolders, store: Store, name: str, run_id: str) -> tuple[ModelVersion, bool]:
    (candidate,) = find_candidates(RunFolders(folders.models, folders.evaluations, folders.splits))
    return ensure_version(store, name, candidate, run_id)


def command(folders: ModelFolders, uri: str, name: str, run_id: str) -> list[str]:
    paths = (str(folders.models), str(folders.evaluations))
    return [sys.executable, "-c", OTHER_PROCESS, *paths, uri, name, run_id]


def versions(store: Store, name: str) -> list[ModelVersion]:
    return list(store.client.search_model_versions(f"name = '{name}'"))


def model_id(version: ModelVersion) -> str:
    """The MLflow model behind a version, whose id the registry does not keep."""
    return Path(version.source).parent.name


def states(store: Store, name: str) -> list[str]:
    """States of the MLflow models whose upload has begun."""
    experiment_id = store.client.get_experiment_by_name(name).experiment_id
    return sorted(str(model.status.value) for model in store.client.search_logged_models([experiment_id]))


@pytest.mark.parametrize("sent", [3_000, 20_000])
def test_an_upload_cut_off_leaves_no_version_and_the_next_registration_is_whole(
    server: MlflowServer, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folders, name = write_models(tmp_path), f"cut after {sent}"
    run_id = begin(folders, Store(server.uri), name)
    gate.after(sent)
    with pytest.raises(RegistryError, match="run the step again"):
        ensure(folders, Store(gate.uri), name, run_id)
    assert gate.mode == "shut"
    assert versions(Store(server.uri), name) == []
    assert "READY" not in states(Store(server.uri), name)

    gate.open()
    version, is_new = ensure(folders, Store(gate.uri), name, run_id)
    assert is_new and missing_files(Store(server.uri), version) == ()
    assert states(Store(server.uri), name).count("READY") == 1
    assert "PENDING" not in states(Store(server.uri), name)
    (tmp_path / "copy").mkdir()
    Predictor.load(fetch_model(Store(server.uri), version, tmp_path / "copy"))
    assert ensure(folders, Store(gate.uri), name, run_id) == (version, False)


def test_a_registration_killed_while_it_uploads_leaves_no_version(
    server: MlflowServer, gate: Gate, tmp_path: Path
) -> None:
    folders, name = write_models(tmp_path), "registration killed"
    run_id = begin(folders, Store(server.uri), name)
    gate.after(60_000, "held")
    process = subprocess.Popen(command(folders, gate.uri, name, run_id), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while gate.mode != "held" and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert gate.mode == "held", errors
    assert versions(Store(server.uri), name) == [] and states(Store(server.uri), name) == ["PENDING"]
    version, is_new = ensure(folders, Store(server.uri), name, run_id)
    assert is_new and missing_files(Store(server.uri), version) == ()
    assert states(Store(server.uri), name) == ["FAILED", "READY"]


def test_two_registrations_at_once_make_one_version(server: MlflowServer, tmp_path: Path) -> None:
    folders, name = write_models(tmp_path), "registered at once"
    run_id = begin(folders, Store(server.uri), name)
    processes = [
        subprocess.Popen(
            command(folders, server.uri, name, run_id), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=400) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    (version,) = versions(Store(server.uri), name)
    assert sorted(out.split() for out, _ in outputs) == [[version.version, "False"], [version.version, "True"]]
    assert missing_files(Store(server.uri), version) == ()


@pytest.mark.parametrize("gone", ["model.keras", "card.json", "everything"])
def test_a_version_whose_files_are_gone_is_reported_never_served_and_registered_again(
    server: MlflowServer, tmp_path: Path, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    folders, name = write_models(tmp_path), f"gone {gone}"
    run_id = begin(folders, Store(server.uri), name)
    old, _ = ensure(folders, Store(server.uri), name, run_id)
    stored = [path for path in (server.folder / "files").rglob("*") if path.is_file() and model_id(old) in path.parts]
    assert len(stored) > 10
    for path in stored:
        if gone in {path.name, "everything"}:
            path.unlink()
    lost = "card.json" if gone == "everything" else gone
    assert missing_files(Store(server.uri), old) == (lost,)
    (tmp_path / "copy").mkdir()
    with pytest.raises(RegistryError, match=rf"without {lost}: it cannot answer"):
        fetch_model(Store(server.uri), old, tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []

    new, is_new = ensure(folders, Store(server.uri), name, run_id)
    assert (is_new, new.version) == (True, "2")
    assert f"version 1 of {name} has lost {lost}" in caplog.text
    assert missing_files(Store(server.uri), new) == ()
    assert ensure(folders, Store(server.uri), name, run_id) == (new, False)


def test_lost_files_of_a_local_store_are_reported(store: Store, tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    run_id = begin(folders, store, "local")
    version, _ = ensure(folders, store, "local", run_id)
    assert missing_files(store, version) == ()
    for path in (tmp_path / "mlruns").rglob("artifacts/artifact/model.keras"):
        path.unlink()
    assert missing_files(store, version) == ("model.keras",)


def test_a_store_that_does_not_answer_is_not_a_version_without_files(
    server: MlflowServer, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    folders, name = write_models(tmp_path), "not answering"
    version, _ = ensure(folders, Store(server.uri), name, begin(folders, Store(server.uri), name))
    gate.shut()
    with pytest.raises(RegistryError, match=r"expected an MLflow store that answers.*ends the connection"):
        missing_files(Store(gate.uri), version)


def test_a_version_created_just_before_its_process_was_killed_becomes_ready(
    server: MlflowServer, tmp_path: Path
) -> None:
    folders, name = write_models(tmp_path), "killed before ready"
    run_id = begin(folders, Store(server.uri), name)
    version, _ = ensure(folders, Store(server.uri), name, run_id)
    Store(server.uri).client.finalize_logged_model(model_id(version), "PENDING")
    assert states(Store(server.uri), name) == ["PENDING"]
    assert ensure(folders, Store(server.uri), name, run_id) == (version, False)
    assert states(Store(server.uri), name) == ["READY"]


@pytest.mark.parametrize("damage", ["lost", "shortened"])
def test_a_store_that_keeps_less_than_it_was_given_is_refused(
    server: MlflowServer, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    folders, name = write_models(tmp_path), f"keeps less, {damage}"
    run_id = begin(folders, Store(server.uri), name)
    original = MlflowClient.log_model_artifacts

    def damaging_upload(client: MlflowClient, model: str, folder: str) -> None:
        """A disk that fails after it has confirmed the upload."""
        original(client, model, folder)
        (stored,) = [path for path in (server.folder / "files").rglob("model.keras") if model in path.parts]
        if damage == "lost":
            stored.unlink()
        else:
            stored.write_bytes(stored.read_bytes()[:1000])

    with (
        monkeypatch.context() as patched,
        pytest.raises(RegistryError, match=r"without artifacts/artifact/model\.keras"),
    ):
        patched.setattr(MlflowClient, "log_model_artifacts", damaging_upload)
        ensure(folders, Store(server.uri), name, run_id)
    assert versions(Store(server.uri), name) == []
    assert ensure(folders, Store(server.uri), name, run_id)[1]

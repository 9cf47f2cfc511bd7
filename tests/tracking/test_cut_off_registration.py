"""No version without its model: registrations that are cut off, and versions whose files are gone."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from cxr.errors import RegistryError
from cxr.inference.predictor import Predictor
from cxr.tracking.registry_reader import fetch_model, missing_files
from cxr.tracking.store import Store
from support.loopback import Gate, MlflowServer
from support.model_folders import write_models
from support.registrations import begin, ensure, model_id, start_registration, states, versions
from support.sweeps import exhaustive


@pytest.mark.parametrize("sent", [20_000, *exhaustive(3_000)])
def test_an_upload_cut_off_leaves_no_version_and_the_next_registration_is_whole(
    server: MlflowServer, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    folders, name = write_models(tmp_path), f"cut after {sent}"
    run_id = begin(folders, Store(server.uri), name)
    gate.after(sent)
    # Later calls may try again: a server closes a connection that was idle, sometimes while it is used.
    with monkeypatch.context() as no_retries, pytest.raises(RegistryError, match="run the step again"):
        no_retries.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
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
    process = start_registration(folders, gate.uri, run_id, name)
    deadline = time.monotonic() + 240
    while gate.mode != "held" and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(60)
    assert gate.mode == "held", errors
    assert versions(Store(server.uri), name) == [] and states(Store(server.uri), name) == ["PENDING"]
    version, is_new = ensure(folders, Store(server.uri), name, run_id)
    assert is_new and missing_files(Store(server.uri), version) == ()
    assert states(Store(server.uri), name) == ["FAILED", "READY"]


@pytest.mark.parametrize("gone", ["model.keras", *exhaustive("card.json", "everything")])
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
    folders, name = write_models(tmp_path), "not answering"
    version, _ = ensure(folders, Store(server.uri), name, begin(folders, Store(server.uri), name))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
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


@pytest.mark.parametrize("damage", ["shortened", *exhaustive("lost")])
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

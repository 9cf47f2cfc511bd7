"""Files of a server whose S3 store has an address that only the server can use: clients read through the server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr.inference.predictor import Predictor
from cxr.tracking import artifact_download
from cxr.tracking.artifact_download import SIGNED_DOWNLOADS
from cxr.tracking.registry_reader import fetch_version
from cxr.tracking.store import Store
from support.loopback import Gate, MlflowServer
from support.model_folders import write_models
from support.servers import ObjectStore
from support.tracking_server import register_versions

# They need an S3 store; in `make test`, tests/tracking registers on a server that is near its files.
pytestmark = [pytest.mark.integration, pytest.mark.exhaustive]

UNKNOWN_NAME = "http://s3:8333"
SECONDS = 100
"""Limit for a whole registration on a busy machine; MLflow's client tries for longer than that for each file."""


@contextlib.contextmanager
def server_with_store_at(address: str, store: ObjectStore, bucket: str, folder: Path) -> Iterator[MlflowServer]:
    """A server that reaches its store at an address through a proxy that its clients do not have."""
    environment = {**store.environment, "AWS_ENDPOINT_URL": address, "HTTP_PROXY": store.url, "NO_PROXY": ""}
    server = MlflowServer(folder, "--artifacts-destination", f"s3://{bucket}/files", environment=environment)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(autouse=True)
def nothing_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process knows: a client has neither checked a server nor the variables of its store."""
    monkeypatch.setattr(artifact_download, "_servers_checked", set())
    monkeypatch.setenv(SIGNED_DOWNLOADS, "")
    monkeypatch.delenv(SIGNED_DOWNLOADS)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store_gate(object_store: ObjectStore) -> Iterator[Gate]:
    """The clients' way to the S3 store."""
    gate = Gate(int(object_store.url.rpartition(":")[2]))
    yield gate
    gate.open()
    gate.close()


def test_a_registration_decides_without_delay_and_says_once_how_it_reads_files(
    object_store: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    flags = {"models": folders.models, "evaluations": folders.evaluations, "splits": folders.splits,
             "ensemble": tmp_path / "none", "registration": tmp_path / "registration", "require_gpu": "false",
             "min_auroc": 0, "min_sensitivity": 0, "max_calibration_error": 1}  # fmt: skip
    with server_with_store_at(UNKNOWN_NAME, object_store, bucket, tmp_path / "server") as server:
        flags["tracking_uri"] = server.uri
        command = [*(sys.executable, "-m", "cxr.cli.main", "register")]
        command += [argument for name, value in flags.items() for argument in (f"--{name}", str(value))]
        start = time.monotonic()
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150)
        seconds = time.monotonic() - start
    assert process.returncode == 0, process.stderr[-3000:]
    assert json.loads((tmp_path / "registration" / "decision.json").read_text())["decision"]["promote"] is True
    assert seconds < SECONDS
    output = process.stdout + process.stderr
    assert output.count("no machine is known by the name 's3'") == 1, output
    assert "downloads them through the server" in output and "AWS_ENDPOINT_URL" in output


@pytest.mark.parametrize(
    ("way", "problem"), [("shut", "ends the connection"), ("held", "did not answer"), ("open", None)]
)
def test_signed_addresses_are_used_only_where_they_answer(
    object_store: ObjectStore, bucket: str, store_gate: Gate, tmp_path: Path, way: str, problem: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with server_with_store_at(store_gate.uri, object_store, bucket, tmp_path / "server") as server:
        register_versions(tmp_path / "models", server.uri)
        {"shut": store_gate.shut, "held": store_gate.hold, "open": store_gate.open}[way]()
        os.environ.pop(SIGNED_DOWNLOADS, None)
        artifact_download._servers_checked.clear()
        caplog.clear()
        for version in ("1", "2"):
            (tmp_path / version).mkdir()
            start = time.monotonic()
            Predictor.load(fetch_version(Store(server.uri), "pneumonia-classifier", version, tmp_path / version))
            assert time.monotonic() - start < SECONDS / 2
    messages = [record.message for record in caplog.records if record.name == artifact_download.__name__]
    assert [problem in message for message in messages] == ([True] if problem else [])
    assert os.environ.get(SIGNED_DOWNLOADS) == ("false" if problem else None)

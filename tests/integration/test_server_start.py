"""``mlflow/entrypoint.sh`` beside stores that are late, absent or closed, and clients that do not know its S3 store."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.loopback import Gate, free_port
from support.servers import (
    ENTRYPOINT,
    PATIENCE,
    Database,
    ObjectStore,
    TrackingServer,
    database,
    healthy,
    server_settings,
    tracking_server,
)

# They need PostgreSQL and an S3 store.
pytestmark = [pytest.mark.integration, pytest.mark.exhaustive]

UNKNOWN_NAME = "http://s3:8333"
SECONDS = 30
"""Limit for a file on a busy machine; MLflow's client tries an address that does not answer for longer."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    with database() as server:
        yield server


def run(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    full = server_settings(folder, free_port(), "unused", "a long password") | environment
    return subprocess.run([ENTRYPOINT, *words], env=full, capture_output=True, text=True, timeout=PATIENCE)


def test_two_servers_wait_for_one_late_and_empty_database_and_both_start(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    port, password = free_port(), secrets.token_urlsafe(16)
    late = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "mlflow", "PGPASSWORD": password}
    servers, processes = [], []
    try:
        for number in (1, 2):
            folder = tmp_path / str(number)
            folder.mkdir()
            settings = server_settings(folder, free_port(), "unused", "a long password") | object_store.environment
            # A database that is there as soon as PostgreSQL is.
            settings |= late | {"PGDATABASE": "postgres", "MLFLOW_WORKERS": "1"}
            log = folder / "log"
            with log.open("wb") as output:
                processes.append(subprocess.Popen([ENTRYPOINT], env=settings, stdout=output, stderr=output, cwd=folder))
            server = TrackingServer(f"http://127.0.0.1:{settings['MLFLOW_PORT']}", "unused", settings, ("admin", ""))
            servers.append((server, log))
        for process, (_, log) in zip(processes, servers, strict=True):
            wait_until(process, lambda log=log: "waiting for an answer of PostgreSQL" in log.read_text())
        with database(port, password):
            for process, (server, log) in zip(processes, servers, strict=True):
                wait_until(process, lambda server=server: healthy(server))
                assert log.read_text().count("waiting for an answer of PostgreSQL") == 1
                assert "Traceback" not in log.read_text()
                # Only logins of the administrator are answered: the users are there, too.
                path = "/api/2.0/mlflow/experiments/search?max_results=1"
                assert server.status(path, ("admin", "a long password")) == 200
                assert server.status(path, ("admin", "another password")) == 401
            assert sum("creating the tables" in log.read_text() for _, log in servers) == 1
            assert [process.poll() for process in processes] == [None, None]
            for process in processes:
                process.terminate()
                process.wait(30)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.parametrize("wrong", [{"PGPASSWORD": "wrong"}, {"PGDATABASE": "absent"}, {"PGUSER": "nobody"}])
def test_a_login_that_the_database_refuses_ends_at_once(
    postgres: Database, object_store: ObjectStore, tmp_path: Path, wrong: dict[str, str]
) -> None:
    answer = run(tmp_path, dict(postgres.environment) | dict(object_store.environment) | wrong)
    assert answer.returncode == 2
    assert answer.stderr.startswith("entrypoint.sh: expected to log in to database ")
    assert "FATAL:" in answer.stderr and "correct PGUSER" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert "PGPASSWORD=" not in answer.stderr


def test_waiting_for_the_database_has_an_end_with_the_last_reason(tmp_path: Path) -> None:
    port = str(free_port())
    absent = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "mlflow", "PGPASSWORD": "any", "PGDATABASE": "mlflow"}
    answer = run(tmp_path, absent | {"WAIT_SECONDS": "1"}, "upgrade")
    waiting, end = answer.stderr.splitlines()
    assert answer.returncode == 1
    assert waiting.startswith(f"entrypoint.sh: waiting for an answer of PostgreSQL at 127.0.0.1:{port}, at most 1 s")
    assert "WAIT_SECONDS=1" in end and "refused" in end and "correct PGHOST and PGPORT" in end


def test_a_server_that_waits_can_be_stopped(tmp_path: Path) -> None:
    settings = server_settings(tmp_path, free_port(), "unused", "a long password")
    settings |= {"PGHOST": "127.0.0.1", "PGPORT": str(free_port()), "PGUSER": "mlflow", "PGPASSWORD": "any"}
    settings |= {"PGDATABASE": "mlflow"}
    process = subprocess.Popen(
        [ENTRYPOINT, "upgrade"], env=settings, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stderr is not None and "waiting for" in process.stderr.readline()
        process.terminate()
        # Only after the last process with the pipe has ended, the pipe ends.
        assert process.communicate(timeout=20)[1] == ""
        assert process.returncode == 143
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_buckets_wait_for_the_store_and_tell_what_they_did(object_store: ObjectStore, tmp_path: Path) -> None:
    gate = Gate(int(object_store.url.rpartition(":")[2]))
    gate.shut()
    names = [f"bucket-{secrets.token_hex(6)}" for _ in range(3)]
    settings = server_settings(tmp_path, free_port(), "unused", "") | object_store.environment
    settings["AWS_ENDPOINT_URL"] = gate.uri
    # What only the server needs is not asked for.
    del settings["MLFLOW_ARTIFACTS_DESTINATION"]
    process = subprocess.Popen([ENTRYPOINT, "buckets", *names], env=settings, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        waiting = process.stderr.readline()
        assert waiting.startswith(f"entrypoint.sh: waiting for an answer of the S3 store at {gate.uri}, at most 900 ")
        time.sleep(3)
        gate.open()
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        gate.close()
    assert process.returncode == 0
    received, *done = rest.splitlines()
    assert received.startswith(f"entrypoint.sh: received an answer of the S3 store at {gate.uri} after ")
    assert done == [f"entrypoint.sh: bucket {name}: created" for name in names]
    assert {path.name for path in object_store.folder.iterdir()} >= set(names)
    again = run(tmp_path, dict(object_store.environment), "buckets", names[0])
    assert (again.returncode, again.stderr) == (0, f"entrypoint.sh: bucket {names[0]}: exists\n")


def test_a_wrong_key_of_the_store_ends_at_once(object_store: ObjectStore, tmp_path: Path) -> None:
    wrong = dict(object_store.environment) | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    answer = run(tmp_path, wrong, "buckets", "bucket-of-nobody")
    assert answer.returncode == 2
    assert object_store.url in answer.stderr and "403" in answer.stderr and "AWS_SECRET_ACCESS_KEY" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert not (object_store.folder / "bucket-of-nobody").exists()


def test_a_store_that_does_not_come_ends_the_wait_with_the_last_reason(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    absent = dict(object_store.environment) | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    answer = run(tmp_path, absent | {"WAIT_SECONDS": "1"}, "buckets", "first", "second")
    _, end = answer.stderr.splitlines()
    assert answer.returncode == 1
    for words in (absent["AWS_ENDPOINT_URL"], "WAIT_SECONDS=1", "Could not connect", "correct AWS_ENDPOINT_URL"):
        assert words in end


def test_a_client_of_mlflow_reads_files_without_knowing_the_store(
    postgres: Database, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    # The server reaches the name through a proxy that its clients do not have.
    hidden = {"AWS_ENDPOINT_URL": UNKNOWN_NAME, "HTTP_PROXY": object_store.url, "NO_PROXY": ""}
    store = dataclasses.replace(object_store, environment={**object_store.environment, **hidden})
    for name in (*hidden, "http_proxy", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"):
        monkeypatch.delenv(name, raising=False)
    content = os.urandom(100_000)
    (tmp_path / "weights.bin").write_bytes(content)
    with tracking_server(tmp_path, postgres, store) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", server.user[0])
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.user[1])
        client = MlflowClient(server.uri)
        run_id = client.create_run(client.create_experiment("hidden store")).info.run_id
        start = time.monotonic()
        client.log_artifact(run_id, str(tmp_path / "weights.bin"), "model")
        assert [entry.path for entry in client.list_artifacts(run_id, "model")] == ["model/weights.bin"]
        location = f"{client.get_run(run_id).info.artifact_uri}/model"
        path = location.removeprefix("mlflow-artifacts:/")
        assert server.status(f"/api/2.0/mlflow-artifacts/presigned/{path}/weights.bin", server.user) == 501
        folder = download_artifacts(location, dst_path=str(tmp_path / "copy"), tracking_uri=server.uri)
        assert time.monotonic() - start < SECONDS
        assert (Path(folder) / "weights.bin").read_bytes() == content
    assert list((object_store.folder / server.bucket).rglob("weights.bin"))


def wait_until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)

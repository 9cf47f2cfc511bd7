"""`cxr serve` with two workers: under load while the alias moves, with a killed worker, and when it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.tracking.aliases import read_promotion_log
from cxr.tracking.store import Store
from cxr.tracking.webhook_signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from support.model_folders import ModelFolders
from support.rest_service import PNG_HEADERS, ServeCommand, ServiceClient, worker_processes
from support.sweeps import exhaustive
from support.tracking_server import NAME, wait_until, write_registry

SECRET = "a secret of some length"
NEVER_POLL = 3600.0
MODELS = {"1": "three_block", "2": "shallow"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ModelFolders]:
    uri, folders = write_registry(tmp_path_factory.mktemp("store"))
    Store(uri).client.set_registered_model_alias(NAME, "champion", "1")
    return uri, folders


@pytest.fixture(scope="module")
def command(store: tuple[str, ModelFolders], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeCommand]:
    arguments = ["--tracking_uri", store[0], "--seconds", str(NEVER_POLL), "--workers", "2", "--notice_seconds", "2"]
    log = tmp_path_factory.mktemp("serving") / "log"
    command = ServeCommand(log, *arguments, environment={"CXR_WEBHOOK_SECRET": SECRET})
    wait_until(lambda: command.client.metric("cxr_workers", version="1") == 2, 60)
    yield command
    command.kill()


def move_champion(uri: str, client: ServiceClient, version: str) -> None:
    """As a person does it in MLflow's page, whose server then sends a webhook to the service."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    Store(uri).client.set_registered_model_alias(NAME, "champion", version)
    data = {"name": NAME, "alias": "champion", "version": version}
    body = json.dumps({"entity": "model_version_alias", "action": "created", "data": data})
    delivery_id, timestamp = str(uuid.uuid4()), str(int(time.time()))
    signature = _generate_hmac_signature(SECRET, delivery_id, timestamp, body)
    headers = {DELIVERY_HEADER: delivery_id, TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signature}
    assert client.request("POST", "/webhook", body, headers).status == 200


def test_no_request_fails_while_the_alias_moves_and_one_version_answers_each(
    command: ServeCommand, store: tuple[str, ModelFolders]
) -> None:
    (uri, folders), client = store, command.client
    image = folders.images[0]
    expected = {}
    for version, model in MODELS.items():
        metadata = ModelMetadata.read(folders.evaluations / model)
        expected[version] = Predictor.load(folders.models / model, metadata).predict([image])[0].probability
    pause = threading.Event()

    def predict(_: int) -> tuple[int, str, float]:
        response = client.predict(image, PNG_HEADERS)
        pause.wait(0.05)
        return response.status, response.json["version"], response.json["predictions"][0]["probability"]

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(predict, number) for number in range(200)]
        for version in ("2", "1", "2"):
            move_champion(uri, client, version)
            wait_until(lambda version=version: client.metric("cxr_workers", version=version) == 2, 30)
        responses = [future.result() for future in futures]
        responses += [predict(number) for number in range(4)]
    assert {status for status, _, _ in responses} == {200}
    versions = [version for _, version, _ in responses]
    assert set(versions) == {"1", "2"}
    for _, version, probability in responses:
        assert probability == pytest.approx(expected[version], abs=1e-6)
    assert client.metric("cxr_requests_total", path="/v1/predictions", status="200") == len(responses)
    for version in ("1", "2"):
        assert client.metric("cxr_predictions_total", version=version) == versions.count(version)
    assert client.metric("cxr_workers", version="1") == 0
    champions = [entry.champion for entry in read_promotion_log(Store(uri), NAME)]
    assert champions[-3:] == ["2", "1", "2"], "only one worker writes the promotion log"


def test_a_killed_worker_is_replaced_while_the_other_one_answers(
    command: ServeCommand, store: tuple[str, ModelFolders]
) -> None:
    client, image = command.client, store[1].images[0]
    predictions = client.metric("cxr_predictions_total")
    killed, surviving = command.workers()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: "ended with status -9" in command.text)
    for _ in range(10):
        assert client.predict(image, PNG_HEADERS).status == 200
    wait_until(lambda: client.metric("cxr_workers") == 2, 60)
    workers = command.workers()
    assert len(workers) == 2 and surviving in workers and killed not in workers
    assert client.metric("cxr_workers_replaced_total") == 1
    assert client.metric("cxr_predictions_total") == predictions + 10, "the counts of the killed worker stay"
    assert client.metric("cxr_workers", version=client.get("/version")["version"]) == 2


def test_sigterm_first_ends_readiness_and_leaves_no_process_behind(
    command: ServeCommand, store: tuple[str, ModelFolders]
) -> None:
    client, workers = command.client, command.workers()
    command.process.send_signal(signal.SIGTERM)
    wait_until(lambda: client.request("GET", "/ready").status == 503, 2)
    assert client.predict(store[1].images[0], PNG_HEADERS).status == 200
    started = time.monotonic()
    assert command.process.wait(30) == 128 + signal.SIGTERM
    assert time.monotonic() - started < 10
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert "Traceback" not in command.text and SECRET not in command.text
    with pytest.raises(ConnectionError):
        client.request("GET", "/health")


def workers_that_load(service: int) -> list[int]:
    """Workers that have received their settings: the first thing that they then do is to leave the process group."""
    return [worker for worker in worker_processes(service) if os.getpgid(worker) == worker]


def test_workers_of_a_service_that_is_killed_while_they_load_end_at_once(
    store: tuple[str, ModelFolders], tmp_path: Path
) -> None:
    """They hold its address: a service that is started in its place would find it in use."""
    program = [sys.executable, "-m", "cxr.cli.main", "serve", "--tracking_uri", store[0], "--port", "0"]
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen([*program, "--workers", "2"], stderr=log)
    wait_until(lambda: len(workers_that_load(service.pid)) == 2, 60)
    workers = worker_processes(service.pid)
    service.kill()
    service.wait()
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 60)
    messages = (tmp_path / "log").read_text()
    assert "worker" not in messages, "no worker has loaded the model, which it would have reported"
    assert "Traceback" not in messages


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--model", "nowhere"), 2, "nowhere"),
        *exhaustive((("--tracking_uri", "sqlite:///nowhere.db"), 2, "nowhere.db")),
    ],
)
def test_a_failing_start_gives_one_error_and_its_exit_status(
    tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    command_line = [sys.executable, "-m", "cxr.cli.main", "serve", "--port", "0", "--workers", "1", *arguments]
    result = subprocess.run(command_line, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert result.returncode == status, result.stderr
    assert message in result.stderr and "Traceback" not in result.stderr

"""`cxr serve` with two workers: under load while the alias moves, with a worker killed, and at its end."""

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
from cxr.models.metadata import ModelCard
from cxr.serving.rest.cpu import available_cores
from cxr.tracking.connection import client as connect
from cxr.tracking.registry import promotion_log
from cxr.tracking.webhook_signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from support.model_folders import Folders, write_store
from support.rest_service import PNG, Client, Command
from support.tracking_server import NAME, register_versions, wait_until

SECRET = "a secret of some length"
HARDLY_EVER = 3600.0
MODELS = {"1": "three_block", "2": "shallow"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Folders]:
    root = tmp_path_factory.mktemp("store")
    uri = write_store(root)
    folders = register_versions(root / "run", uri)
    connect(uri).set_registered_model_alias(NAME, "champion", "1")
    return uri, folders


@pytest.fixture(scope="module")
def serving(store: tuple[str, Folders], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    words = ["--tracking_uri", store[0], "--seconds", str(HARDLY_EVER), "--workers", "2", "--notice_seconds", "2"]
    command = Command(tmp_path_factory.mktemp("serving") / "log", *words, environment={"CXR_WEBHOOK_SECRET": SECRET})
    wait_until(lambda: command.client.measured("cxr_workers", version="1") == 2, 60)
    yield command
    command.kill()


def move(uri: str, client: Client, version: str) -> None:
    """As a person does it in MLflow's page, whose server then tells the service."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    connect(uri).set_registered_model_alias(NAME, "champion", version)
    data = {"name": NAME, "alias": "champion", "version": version}
    body = json.dumps({"entity": "model_version_alias", "action": "created", "data": data})
    name, at = str(uuid.uuid4()), str(int(time.time()))
    signature = _generate_hmac_signature(SECRET, name, at, body)
    headers = {DELIVERY_HEADER: name, TIMESTAMP_HEADER: at, SIGNATURE_HEADER: signature}
    assert client.ask("POST", "/webhook", body, headers).status == 200


def test_no_request_fails_while_the_alias_moves_and_each_is_answered_by_one_version(
    serving: Command, store: tuple[str, Folders]
) -> None:
    (uri, folders), client = store, serving.client
    image = folders.images[0]
    expected = {
        version: Predictor.load(folders.models / model, ModelCard.read(folders.evaluations / model)).predict([image])
        for version, model in MODELS.items()
    }
    pause = threading.Event()

    def ask(_: int) -> tuple[int, str, float]:
        answer = client.predict(image, PNG)
        pause.wait(0.05)
        return answer.status, answer.json["version"], answer.json["predictions"][0]["probability"]

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(200)]
        for version in ("2", "1", "2"):
            move(uri, client, version)
            wait_until(lambda version=version: client.measured("cxr_workers", version=version) == 2, 30)
        seen = [one.result() for one in asked]
        seen += [ask(number) for number in range(4)]
    assert {status for status, _, _ in seen} == {200}
    versions = [version for _, version, _ in seen]
    assert set(versions) == {"1", "2"}
    for _, version, probability in seen:
        assert probability == pytest.approx(expected[version][0].probability, abs=1e-6)
    assert client.measured("cxr_requests_total", path="/v1/predictions", status="200") == len(seen)
    for version in ("1", "2"):
        assert client.measured("cxr_predictions_total", version=version) == versions.count(version)
    assert client.measured("cxr_workers", version="1") == 0
    told = [entry.champion for entry in promotion_log(uri, NAME)]
    assert told[-3:] == ["2", "1", "2"], "and one worker alone keeps the log"


def test_a_worker_that_is_killed_is_replaced_and_the_others_answer_meanwhile(
    serving: Command, store: tuple[str, Folders]
) -> None:
    client, image = serving.client, store[1].images[0]
    counted = client.measured("cxr_predictions_total")
    lost, other = serving.workers()
    os.kill(lost, signal.SIGKILL)
    wait_until(lambda: "ended with status -9" in serving.text)
    for _ in range(10):
        assert client.predict(image, PNG).status == 200
    wait_until(lambda: client.measured("cxr_workers") == 2, 60)
    first, second = serving.workers()
    assert other in (first, second) and lost not in (first, second)
    assert client.measured("cxr_workers_replaced_total") == 1
    assert client.measured("cxr_predictions_total") == counted + 10, "what the lost one counted is kept"
    assert client.measured("cxr_workers", version=client.get("/version")["version"]) == 2


def test_sigterm_takes_readiness_first_and_leaves_nothing_behind(serving: Command, store: tuple[str, Folders]) -> None:
    client, workers = serving.client, serving.workers()
    serving.process.send_signal(signal.SIGTERM)
    wait_until(lambda: client.ask("GET", "/ready").status == 503, 2)
    assert client.predict(store[1].images[0], PNG).status == 200
    started = time.monotonic()
    assert serving.process.wait(30) == 128 + signal.SIGTERM
    assert time.monotonic() - started < 10
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert "Traceback" not in serving.text and SECRET not in serving.text
    with pytest.raises(ConnectionError):
        client.ask("GET", "/health")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("--model", "nowhere"), 2, "nowhere"),
        (("--tracking_uri", "sqlite:///nowhere.db"), 2, "nowhere.db"),
    ],
)
def test_what_keeps_it_from_starting_is_told_once(
    tmp_path: Path, words: tuple[str, ...], status: int, told: str
) -> None:
    command = [sys.executable, "-m", "cxr.cli.main", "serve", "--port", "0", "--workers", "1", *words]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert answer.returncode == status, answer.stderr
    assert told in answer.stderr and "Traceback" not in answer.stderr


def test_a_container_counts_its_own_share_of_the_cores(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("max 100000\n")
    cores = available_cores(quota)
    assert cores == len(os.sched_getaffinity(0))
    quota.write_text("100000 100000\n")
    assert available_cores(quota) == 1
    quota.write_text("50000 100000\n")
    assert available_cores(quota) == 1, "never none"
    assert available_cores(tmp_path / "missing") == cores

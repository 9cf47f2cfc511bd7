"""A signed message about the model wakes the watchers. Every other message does nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cxr.errors import ParameterError
from cxr.images.sandbox import SandboxedDecoder
from cxr.serving.model_provider import FolderDetectorProvider, FolderModelProvider
from cxr.serving.rest.supervisor import bind_socket
from cxr.serving.rest.webhook import MAX_MESSAGE_BYTES
from cxr.tracking.webhook_signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from support.model_folders import ModelFolders
from support.rest_service import Response, RunningService, champion_provider, run_service

if TYPE_CHECKING:
    from conftest import Registry

SECRET = "a secret of some length"
MESSAGE = {"entity": "model_version_alias", "action": "created", "data": {"name": "pneumonia-classifier"}}


def sign(body: str, secret: str = SECRET, age: int = 0) -> dict[str, str]:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    delivery_id, timestamp = str(uuid.uuid4()), str(int(time.time()) - age)
    return {
        DELIVERY_HEADER: delivery_id,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: _generate_hmac_signature(secret, delivery_id, timestamp, body),
    }


def send(
    service: RunningService,
    event: str = "model_version_alias.created",
    *,
    changed_headers: dict[str, str] | None = None,
    **data: str,
) -> Response:
    entity, _, action = event.partition(".")
    values = {"name": "pneumonia-classifier", "alias": "champion", "version": "2", **data}
    body = json.dumps({"entity": entity, "action": action, "data": values})
    return service.client.request("POST", "/webhook", body.encode(), {**sign(body), **(changed_headers or {})})


@pytest.fixture
def registered(provider: FolderModelProvider) -> FolderModelProvider:
    return replace(provider, registered_name="pneumonia-classifier")


@pytest.fixture
def service(registered: FolderModelProvider, decoder: SandboxedDecoder) -> Iterator[RunningService]:
    with run_service(registered, secret=SECRET, decoder=decoder) as service:
        yield service


def test_a_signed_message_about_the_model_wakes_the_watchers_once(service: RunningService) -> None:
    assert send(service).json == {"done": "looking at the aliases"}
    assert send(service, "model_version_alias.deleted").status == 200
    assert len(service.wake_calls) == 2
    body = json.dumps(MESSAGE)
    headers = sign(body)
    for _ in range(3):
        assert service.client.request("POST", "/webhook", body.encode(), headers).status == 200
    assert len(service.wake_calls) == 3, "a repeated delivery wakes nobody"
    assert send(service, name="another-model").json == {"done": "nothing"}
    assert send(service, "model_version.created").json == {"done": "nothing"}
    assert len(service.wake_calls) == 3


def test_a_message_about_the_detector_wakes_the_watchers_too(
    registered: FolderModelProvider, decoder: SandboxedDecoder
) -> None:
    detectors = FolderDetectorProvider(None, registered_name="pneumonia-regions")
    with run_service(registered, detectors=detectors, secret=SECRET, decoder=decoder) as service:
        for name in ("pneumonia-regions", "pneumonia-classifier"):
            assert send(service, name=name).json == {"done": "looking at the aliases"}
        assert send(service, name="another-model").json == {"done": "nothing"}
        assert len(service.wake_calls) == 2


def test_forged_unsigned_and_old_messages_are_rejected_and_wake_nobody(service: RunningService) -> None:
    for changed_headers in (
        {SIGNATURE_HEADER: "v1,Zm9yZ2Vk"},
        {SIGNATURE_HEADER: ""},
        {TIMESTAMP_HEADER: "1700000000"},
        {DELIVERY_HEADER: "another"},
        sign("another body"),
    ):
        response = send(service, changed_headers=changed_headers)
        assert (response.status, response.json["problem"]) == (401, "bad_signature")
        assert SECRET.encode() not in response.body
    body = json.dumps(MESSAGE)
    for headers in ({}, sign(body, age=3600), sign(body, secret="some other secret")):
        assert service.client.request("POST", "/webhook", body.encode(), headers).status == 401, headers
    assert service.client.request("POST", "/webhook", b"x" * (MAX_MESSAGE_BYTES + 1)).status == 413
    assert service.wake_calls == []


def test_without_a_secret_or_a_registry_all_messages_are_rejected(
    registered: FolderModelProvider, provider: FolderModelProvider, decoder: SandboxedDecoder
) -> None:
    with run_service(registered, decoder=decoder) as service:
        assert (send(service).status, send(service).json["problem"]) == (403, "no_secret")
    with run_service(provider, secret=SECRET, decoder=decoder) as service:
        assert send(service).json["problem"] == "no_registry"
        version = service.client.get("/version")
        assert (version["registered_name"], version["version"], version["model"]) == (None, None, "three_block")
        assert service.wake_calls == []


def test_the_service_says_which_version_answers_and_why_another_does_not(
    registry: Registry, decoder: SandboxedDecoder
) -> None:
    champion = champion_provider(registry.uri, registry.name)
    with run_service(champion, decoder=decoder) as service:
        version = service.client.get("/version")
        assert {key: version[key] for key in ("registered_name", "version", "alias", "model", "problem")} == {
            "registered_name": registry.name,
            "version": "1",
            "alias": "champion",
            "model": "three_block",
            "problem": None,
        }
        (registry.files("2") / "model.keras").unlink()
        registry.set_alias("champion", "2")
        champion.reload()
        health = service.client.get("/health")
        assert (health["status"], health["version"]) == ("ok", "1")
        assert "model.keras" in health["problem"]
        assert service.client.get("/ready") == {"status": "ready", "version": "1"}


def test_a_draining_service_is_not_ready_and_still_answers(service: RunningService, folders: ModelFolders) -> None:
    service.readiness.draining = True
    response = service.client.request("GET", "/ready")
    assert (response.status, response.json["problem"]) == (503, "leaving")
    assert service.client.request("GET", "/v1/models/three_block").status == 503
    prediction = service.client.predict(folders.images[0])
    assert prediction.status == 200 and prediction.headers["connection"] == "close"


def test_a_port_in_use_is_a_parameter_error(service: RunningService) -> None:
    with pytest.raises(ParameterError, match=f"received host=127.0.0.1, port={service.client.port} .*another port"):
        bind_socket("127.0.0.1", service.client.port)

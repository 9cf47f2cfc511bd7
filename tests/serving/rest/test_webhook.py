"""A signed message about the model wakes the watchers, and anything else does nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cxr.errors import ParameterError
from cxr.images.sandbox import LimitedReader
from cxr.serving.model_provider import ServedAlias
from cxr.serving.rest.inference import StandingFolder
from cxr.serving.rest.supervisor import bind
from cxr.serving.rest.webhook import LARGEST
from cxr.tracking.webhook_signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from support.model_folders import Folders
from support.rest_service import Reply, Running, running

if TYPE_CHECKING:
    from conftest import Registry

SECRET = "a secret of some length"
OURS = {"entity": "model_version_alias", "action": "created", "data": {"name": "pneumonia-classifier"}}


def signed(body: str, secret: str = SECRET, age: int = 0) -> dict[str, str]:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    delivery, at = str(uuid.uuid4()), str(int(time.time()) - age)
    return {
        DELIVERY_HEADER: delivery,
        TIMESTAMP_HEADER: at,
        SIGNATURE_HEADER: _generate_hmac_signature(secret, delivery, at, body),
    }


def send(
    service: Running, event: str = "model_version_alias.created", *, changed: dict[str, str] | None = None, **data: str
) -> Reply:
    entity, _, action = event.partition(".")
    values = {"name": "pneumonia-classifier", "alias": "champion", "version": "2", **data}
    body = json.dumps({"entity": entity, "action": action, "data": values})
    return service.client.ask("POST", "/webhook", body.encode(), {**signed(body), **(changed or {})})


@pytest.fixture
def registered(folder: StandingFolder) -> StandingFolder:
    return replace(folder, registered_name="pneumonia-classifier")


@pytest.fixture
def service(registered: StandingFolder, reader: LimitedReader) -> Iterator[Running]:
    with running(registered, secret=SECRET, reader=reader) as found:
        yield found


def test_signed_news_about_the_model_wake_the_watchers_once(service: Running) -> None:
    assert send(service).json == {"done": "looking at the aliases"}
    assert send(service, "model_version_alias.deleted").status == 200
    assert len(service.woken) == 2
    body = json.dumps(OURS)
    headers = signed(body)
    for _ in range(3):
        assert service.client.ask("POST", "/webhook", body.encode(), headers).status == 200
    assert len(service.woken) == 3, "a delivery that comes again wakes nobody"
    assert send(service, name="another-model").json == {"done": "nothing"}
    assert send(service, "model_version.created").json == {"done": "nothing"}
    assert len(service.woken) == 3


def test_forged_unsigned_and_old_messages_are_refused_and_nothing_is_done(service: Running) -> None:
    for changed in (
        {SIGNATURE_HEADER: "v1,Zm9yZ2Vk"},
        {SIGNATURE_HEADER: ""},
        {TIMESTAMP_HEADER: "1700000000"},
        {DELIVERY_HEADER: "another"},
        signed("another body"),
    ):
        answer = send(service, changed=changed)
        assert (answer.status, answer.json["problem"]) == (401, "bad_signature")
        assert SECRET.encode() not in answer.body
    body = json.dumps(OURS)
    for headers in ({}, signed(body, age=3600), signed(body, secret="some other secret")):
        assert service.client.ask("POST", "/webhook", body.encode(), headers).status == 401, headers
    assert service.client.ask("POST", "/webhook", b"x" * (LARGEST + 1)).status == 413
    assert service.woken == []


def test_without_a_secret_or_a_registry_no_message_is_taken(
    registered: StandingFolder, folder: StandingFolder, reader: LimitedReader
) -> None:
    with running(registered, reader=reader) as service:
        assert (send(service).status, send(service).json["problem"]) == (403, "no_secret")
    with running(folder, secret=SECRET, reader=reader) as service:
        assert send(service).json["problem"] == "no_registry"
        version = service.client.get("/version")
        assert (version["registered_name"], version["version"], version["model"]) == (None, None, "three_block")
        assert service.woken == []


def test_it_tells_which_version_answers_and_what_is_in_the_way(registry: Registry, reader: LimitedReader) -> None:
    served = ServedAlias(registry.uri, registry.name)
    with running(served, reader=reader) as service:
        version = service.client.get("/version")
        assert {key: version[key] for key in ("registered_name", "version", "alias", "model", "problem")} == {
            "registered_name": registry.name,
            "version": "1",
            "alias": "champion",
            "model": "three_block",
            "problem": None,
        }
        (registry.files("2") / "model.keras").unlink()
        registry.give("champion", "2")
        served.reload()
        health = service.client.get("/health")
        assert (health["status"], health["version"]) == ("ok", "1")
        assert "model.keras" in health["problem"]
        assert service.client.get("/ready") == {"status": "ready", "version": "1"}


def test_readiness_goes_before_the_service_does(service: Running, folders: Folders) -> None:
    service.standby.leaving = True
    answer = service.client.ask("GET", "/ready")
    assert (answer.status, answer.json["problem"]) == (503, "leaving")
    assert service.client.ask("GET", "/v1/models/three_block").status == 503
    still = service.client.predict(folders.images[0])
    assert still.status == 200 and still.headers["connection"] == "close"


def test_a_port_that_is_taken_is_a_wrong_parameter(service: Running) -> None:
    with pytest.raises(ParameterError, match=f"received host=127.0.0.1, port={service.client.port} .*another port"):
        bind("127.0.0.1", service.client.port)

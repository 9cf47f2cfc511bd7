"""A message of the tracking server wakes the watchers if it is signed and about the model; anything else does nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cxr.errors import ParameterError
from cxr.serving import ServedAlias
from cxr.serving.choice import from_folder
from cxr.serving.rest.desk import StandingFolder
from cxr.serving.rest.news import LARGEST
from cxr.serving.rest.supervisor import bind
from cxr.tracking.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from rest_service import Reply, Running, running

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
def served(registry: Registry) -> ServedAlias:
    return ServedAlias(registry.uri, registry.name)


@pytest.fixture
def service(served: ServedAlias) -> Iterator[Running]:
    with running(served, secret=SECRET) as found:
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


def test_without_a_secret_or_a_registry_no_message_is_taken(served: ServedAlias, registry: Registry) -> None:
    with running(served) as service:
        assert (send(service).status, send(service).json["problem"]) == (403, "no_secret")
        assert service.woken == []
    folder = StandingFolder(from_folder(registry.folders.models / "three_block").load())
    with running(folder, secret=SECRET) as service:
        assert send(service).json["problem"] == "no_registry"
        assert service.client.get("/version")["version"] is None
        assert service.client.get("/version")["model"] == "three_block"


def test_it_tells_which_version_answers_and_what_is_in_the_way(
    service: Running, served: ServedAlias, registry: Registry
) -> None:
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


def test_readiness_goes_before_the_service_does(service: Running, registry: Registry) -> None:
    service.standby.leaving = True
    answer = service.client.ask("GET", "/ready")
    assert (answer.status, answer.json["problem"]) == (503, "leaving")
    assert service.client.ask("GET", f"/v1/models/{registry.name}").status == 503
    still = service.client.predict(registry.images[0])
    assert still.status == 200 and still.headers["connection"] == "close"


def test_a_port_that_is_taken_is_a_wrong_parameter(service: Running, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=f"received host=127.0.0.1, port={service.client.port} .*another port"):
        bind("127.0.0.1", service.client.port)

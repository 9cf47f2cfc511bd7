"""The receiver wakes the watcher for signed news about its model, and does nothing for anything else."""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from cxr.errors import ParameterError
from cxr.serving import ServedAlias
from cxr.serving.receiver import LARGEST, Receiver
from cxr.tracking.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, SignatureCheck

if TYPE_CHECKING:
    from conftest import Registry

SECRET = "a secret of some length"


class Listening:
    """A receiver on loopback, and how often it has woken its watcher."""

    def __init__(self, receiver: Receiver, woken: list[None]) -> None:
        self.receiver, self.woken = receiver, woken

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(*self.receiver.server_address[:2], timeout=30)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def send(self, event: str = "model_version_alias.created", *, headers: dict[str, str] | None = None, **data: str):
        entity, _, action = event.partition(".")
        values = {"name": "pneumonia-classifier", "alias": "champion", "version": "2", **data}
        body = json.dumps({"entity": entity, "action": action, "data": values})
        return self.ask("POST", "/webhook", body.encode(), {**signed(body), **(headers or {})})


def signed(body: str, secret: str = SECRET, age: int = 0) -> dict[str, str]:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    delivery, at = str(uuid.uuid4()), str(int(time.time()) - age)
    return {
        DELIVERY_HEADER: delivery,
        TIMESTAMP_HEADER: at,
        SIGNATURE_HEADER: _generate_hmac_signature(secret, delivery, at, body),
    }


@pytest.fixture
def served(registry: Registry) -> ServedAlias:
    return ServedAlias(registry.uri, registry.name)


@pytest.fixture
def listening(served: ServedAlias) -> Iterator[Listening]:
    yield from listen(served, SignatureCheck(SECRET))


def listen(served: ServedAlias, signatures: SignatureCheck | None) -> Iterator[Listening]:
    woken: list[None] = []
    with Receiver(("127.0.0.1", 0), served, lambda: woken.append(None), signatures) as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        yield Listening(receiver, woken)
        receiver.shutdown()
        thread.join()


def test_signed_news_about_the_model_wake_the_watcher_once(listening: Listening) -> None:
    assert listening.send() == (200, {"done": "looking at the aliases"})
    assert listening.send("model_version_alias.deleted")[0] == 200
    assert len(listening.woken) == 2
    body = json.dumps({"entity": "model_version_alias", "action": "created", "data": {"name": "pneumonia-classifier"}})
    headers = signed(body)
    for _ in range(3):
        assert listening.ask("POST", "/webhook", body.encode(), headers)[0] == 200
    assert len(listening.woken) == 3, "a delivery that comes again wakes nobody"


@pytest.mark.parametrize(
    "changed",
    [
        {SIGNATURE_HEADER: "v1,Zm9yZ2Vk"},
        {SIGNATURE_HEADER: ""},
        {TIMESTAMP_HEADER: "1700000000"},
        {DELIVERY_HEADER: "another"},
        signed("another body"),
    ],
)
def test_forged_unsigned_and_old_messages_are_refused_and_nothing_is_done(
    listening: Listening, changed: dict[str, str]
) -> None:
    status, answer = listening.send(headers=changed)
    assert status == 401
    assert SECRET not in json.dumps(answer)
    body = json.dumps({"entity": "model_version_alias", "action": "created", "data": {"name": "pneumonia-classifier"}})
    assert listening.ask("POST", "/webhook", body.encode())[0] == 401, "without any header"
    assert listening.ask("POST", "/webhook", body.encode(), signed(body, age=3600))[0] == 401, "an hour old"
    assert listening.ask("POST", "/webhook", body.encode(), signed(body, secret="some other secret"))[0] == 401
    assert listening.woken == []


def test_signed_news_about_something_else_are_accepted_and_nothing_is_done(listening: Listening) -> None:
    assert listening.send(name="another-model") == (200, {"done": "nothing"})
    assert listening.send("model_version.created") == (200, {"done": "nothing"})
    assert listening.woken == []


def test_messages_that_are_too_long_or_of_unknown_length_are_refused_unread(listening: Listening) -> None:
    assert listening.ask("POST", "/webhook", b"", {"Content-Length": str(LARGEST + 1)})[0] == 413
    assert listening.ask("POST", "/webhook", b"", {"Content-Length": "-1"})[0] == 411
    assert listening.ask("POST", "/other", b"{}")[0] == 404
    assert listening.woken == []


def test_without_a_secret_no_message_is_taken(served: ServedAlias) -> None:
    for listening in listen(served, None):
        assert listening.send()[0] == 403
        assert listening.woken == []


def test_it_tells_which_version_answers_and_what_is_in_the_way(
    listening: Listening, served: ServedAlias, registry: Registry
) -> None:
    status, version = listening.ask("GET", "/version")
    assert status == 200
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
    status, health = listening.ask("GET", "/health")
    assert (status, health["status"], health["version"]) == (200, "ok", "1")
    assert "model.keras" in health["problem"]
    assert listening.ask("GET", "/ready") == (200, {"status": "ready", "version": "1"})
    assert listening.ask("GET", "/elsewhere")[0] == 404


def test_a_port_that_is_taken_is_a_wrong_parameter(listening: Listening, served: ServedAlias) -> None:
    host, port = listening.receiver.server_address[:2]
    with pytest.raises(ParameterError, match=f"received host=127.0.0.1, port={port} .*choose another port"):
        Receiver((str(host), int(port)), served, lambda: None, None)

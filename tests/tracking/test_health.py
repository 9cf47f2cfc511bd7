from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cxr.errors import RegistryError
from cxr.tracking import open_run
from cxr.tracking.connection import client
from cxr.tracking.health import answers
from support.loopback import Gate, MlflowServer, free_port

SOON = 30
"""Seconds in which an error must be told; MLflow's own client takes minutes."""


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers everything in one way; the MLflow server has no page that is refused on purpose."""

    status, text = 200, "{}"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other_server(request: pytest.FixtureRequest) -> Iterator[str]:
    status, text = request.param
    handler = type("Answer", (Answer,), {"status": status, "text": text})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize(
    ("other_server", "why"),
    [
        ((401, "unauthorised"), "user and a password.*MLFLOW_TRACKING_USERNAME"),
        ((403, "Permission denied"), "this user may not read experiments.*Permission denied"),
        ((404, "no such page"), "a server, but no MLflow"),
        ((200, "<html>welcome</html>"), "a server, but its answer is not MLflow's"),
        ((500, "database gone"), "in trouble.*500: database gone"),
    ],
    indirect=["other_server"],
)
def test_each_answer_that_is_of_no_use_is_told_in_plain_words(other_server: str, why: str) -> None:
    with pytest.raises(RegistryError, match=rf"received tracking uri='{other_server}': .*{why}"):
        client(other_server)


def test_nobody_there_is_told_within_seconds() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(RegistryError, match=r"connection refused.*tracking\.offline: true"):
        client(address)
    assert time.monotonic() - began < SOON


def test_a_name_that_is_unknown_is_told() -> None:
    with pytest.raises(RegistryError, match=r"no machine is known by the name 'mlflow\.invalid'"):
        client("http://mlflow.invalid:5000")


def test_a_frozen_server_is_told_within_seconds_before_anything_is_done(gate: Gate) -> None:
    gate.hold()
    began = time.monotonic()
    with pytest.raises(RegistryError, match="did not answer within 4 s"), open_run(gate.uri, "e", "m", {}, {}):
        pytest.fail("the work must not begin")
    assert time.monotonic() - began < SOON


def test_a_waiting_time_that_the_user_has_set_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(RegistryError, match="did not answer within 1 s"):
        client(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_server_called_by_a_name_that_it_does_not_allow_is_told_so(server: MlflowServer, gate: Gate) -> None:
    assert answers(server.uri) and answers(gate.uri)
    with pytest.raises(RegistryError, match=r"does not want to be called '127\.1:\d+'.*allowed-hosts"):
        client(f"http://127.1:{gate.port}")


def test_a_password_in_the_address_is_never_shown() -> None:
    with pytest.raises(RegistryError) as caught:
        client(f"http://reader:secret@127.0.0.1:{free_port()}")
    assert "secret" not in str(caught.value) and "reader:***@" in str(caught.value)

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cxr.errors import RegistryError
from cxr.tracking.active_run import open_run
from cxr.tracking.store import Store
from support.loopback import Gate, MlflowServer, free_port

TIME_LIMIT = 30
"""Seconds within which an error must be reported; MLflow's own client takes minutes."""


class FixedResponse(http.server.BaseHTTPRequestHandler):
    """Gives one response to every request; the MLflow server has no page that always fails."""

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
    handler = type("Handler", (FixedResponse,), {"status": status, "text": text})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("other_server", "reason"),
    [
        ((401, "unauthorised"), "user and a password.*MLFLOW_TRACKING_USERNAME"),
        ((403, "Permission denied"), "this user may not read experiments.*Permission denied"),
        ((404, "no such page"), "a server, but no MLflow"),
        ((200, "<html>welcome</html>"), "a server, but its answer is not MLflow's"),
        ((500, "database gone"), "in trouble.*500: database gone"),
    ],
    indirect=["other_server"],
)
def test_each_unusable_response_is_explained(other_server: str, reason: str) -> None:
    with pytest.raises(RegistryError, match=rf"received tracking uri='{other_server}': .*{reason}"):
        Store(other_server).connect()


def test_a_refused_connection_is_reported_within_seconds() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    start = time.monotonic()
    with pytest.raises(RegistryError, match=r"connection refused.*tracking\.offline: true"):
        Store(address).connect()
    assert time.monotonic() - start < TIME_LIMIT


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(RegistryError, match=r"no machine is known by the name 'mlflow\.invalid'"):
        Store("http://mlflow.invalid:5000").connect()


def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match=r"the proxy that the environment names.*HTTP_PROXY.*NO_PROXY"):
        Store("http://mlflow.invalid:5000").connect()


def test_a_frozen_server_is_reported_within_seconds_before_the_work_begins(gate: Gate) -> None:
    gate.hold()
    start = time.monotonic()
    with pytest.raises(RegistryError, match="did not answer within 4 s"), open_run(Store(gate.uri), "e", "m", {}, {}):
        pytest.fail("the work must not begin")
    assert time.monotonic() - start < TIME_LIMIT


def test_a_waiting_time_that_the_user_has_set_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(RegistryError, match="did not answer within 1 s"):
        Store(f"http://127.0.0.1:{silent.getsockname()[1]}").connect()


def test_a_server_called_by_a_name_that_it_does_not_allow_is_told_so(server: MlflowServer, gate: Gate) -> None:
    assert Store(server.uri).answers() and Store(gate.uri).answers()
    with pytest.raises(RegistryError, match=r"does not accept the host name '127\.1:\d+'.*allowed-hosts"):
        Store(f"http://127.1:{gate.port}").connect()


def test_a_password_in_the_address_is_never_shown() -> None:
    with pytest.raises(RegistryError) as caught:
        Store(f"http://reader:secret@127.0.0.1:{free_port()}").connect()
    assert "secret" not in str(caught.value) and "reader:***@" in str(caught.value)

"""The receiver of webhooks: a small HTTP server that wakes the watcher and tells which version answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cxr.errors import ParameterError, SignatureError
from cxr.serving.served import ServedAlias
from cxr.tracking.signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Delivery, SignatureCheck
from cxr.tracking.webhooks import EVENTS

log = logging.getLogger(__name__)

LARGEST = 64 * 1024
"""Bytes of a message; MLflow's have a few hundred."""
SLOWEST = 10.0
"""Seconds that a client may take over a part of its message."""


class Receiver(ThreadingHTTPServer):
    """Answers ``POST /webhook``, ``GET /health``, ``GET /ready`` and ``GET /version``."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        served: ServedAlias,
        wake: Callable[[], None],
        signatures: SignatureCheck | None,
    ) -> None:
        """Bind to an address.

        Args:
            address: host and port; port 0 takes a free one.
            served: what is served.
            wake: called when an alias of the registered model has moved.
            signatures: checks messages; None refuses all of them.

        Raises:
            ParameterError: if the address cannot be had.
        """
        self.served, self.wake, self.signatures = served, wake, signatures
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            host, port = address
            raise ParameterError(
                [f"expected a free address, received host={host}, port={port} ({error.strerror}); choose another port"]
            ) from error

    @property
    def url(self) -> str:
        """Address of the receiver."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note a connection that broke off; the receiver goes on.

        Args:
            request: the connection.
            client_address: its other end.
        """
        log.debug("connection with %s broke off", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = SLOWEST
    server_version, sys_version = "cxr", ""

    def do_GET(self) -> None:
        served = self.server.served
        current, problem = served.current, served.problem
        if self.path == "/health":
            self._answer(200, {"status": "ok", "version": current.version, "problem": problem})
        elif self.path == "/ready":  # nothing listens here before a version is loaded
            self._answer(200, {"status": "ready", "version": current.version})
        elif self.path == "/version":
            self._answer(
                200,
                {
                    "registered_name": served.registered_name,
                    "version": current.version,
                    "alias": current.alias,
                    "model": current.card.model,
                    "since": current.since.isoformat(),
                    "banner": current.banner,
                    "problem": problem,
                },
            )
        else:
            self._answer(404, {"error": "expected /health, /ready, /version or POST /webhook"})

    def do_POST(self) -> None:
        if self.path != "/webhook":
            self._answer(404, {"error": "expected POST /webhook"})
            return
        length = self.headers.get("Content-Length") or ""
        if not (length.isascii() and length.isdigit()):
            self._answer(411, {"error": "expected a Content-Length"})
            return
        if int(length) > LARGEST:
            self._answer(413, {"error": f"expected at most {LARGEST} bytes"})
            return
        body = self.rfile.read(int(length))
        if self.server.signatures is None:
            self._answer(403, {"error": "no secret is set here: messages are not taken"})
            return
        try:
            delivery = self.server.signatures.check(
                body,
                signature=self.headers.get(SIGNATURE_HEADER),
                delivery_id=self.headers.get(DELIVERY_HEADER),
                timestamp=self.headers.get(TIMESTAMP_HEADER),
            )
        except SignatureError as error:
            log.warning("message from %s refused: %s", self.client_address[0], error)
            self._answer(401, {"error": "expected a message of now with a valid signature"})
            return
        done = self._about_us(delivery)
        if done:
            self.server.wake()
        self._answer(200, {"done": "looking at the aliases" if done else "nothing"})

    def _about_us(self, delivery: Delivery) -> bool:
        ours = delivery.data.get("name") == self.server.served.registered_name
        return ours and delivery.event in EVENTS and not delivery.repeated

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = (json.dumps(content) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

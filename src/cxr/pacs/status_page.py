"""The node's answers over HTTP: ``/health`` for probes, ``/metrics`` for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from cxr.serving.addresses import address_error

_REQUEST_SECONDS = 10.0


class StatusPage:
    """A small HTTP server in a thread."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, problem: Callable[[], str | None]) -> None:
        """Bind the address, and answer.

        Args:
            host: address to listen on.
            port: port to listen on; 0 takes a free one.
            registry: the metrics.
            problem: says what does not work any more; None if everything does.

        Raises:
            ParameterError: if the address is not free.
        """

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_SECONDS

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._respond(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif self.path == "/health":
                    text = problem()
                    self._respond(503 if text else 200, "text/plain; charset=utf-8", f"{text or 'ok'}\n".encode())
                else:
                    self._respond(404, "text/plain; charset=utf-8", b"expected /health or /metrics\n")

            def _respond(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Write nothing: probes ask every few seconds."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise address_error(host, port, error) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

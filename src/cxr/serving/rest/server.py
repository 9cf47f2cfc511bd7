"""The HTTP server of a worker: uvicorn on a socket that the workers share."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

BACKLOG = 1024
REQUEST_HEAD_SECONDS = 10.0
"""Time that a client may take to send the head of a request."""


class HttpServer(uvicorn.Server):
    """Serves an application on a shared socket. When it stops, it first finishes the running requests."""

    def __init__(
        self,
        application: ASGIApp,
        shared_socket: socket.socket,
        end_seconds: float,
        *,
        every_second: Callable[[], None],
        on_listening: Callable[[], None] = lambda: None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        """Configure uvicorn.

        Args:
            application: the application.
            shared_socket: bound socket.
            end_seconds: longest time for the running requests to finish.
            every_second: called about once a second while the server runs.
            on_listening: called when the server accepts connections.
            on_closed: called when the server accepts no more connections; running requests go on.
        """

        async def notify() -> None:
            every_second()

        # With backlog=1 each event loop accepts one connection at a time and leaves the next to the other workers.
        super().__init__(
            uvicorn.Config(
                application, loop="asyncio", http=_HeadTimeoutProtocol, ws="none", lifespan="off", log_config=None,
                access_log=False, server_header=False, proxy_headers=False, backlog=1,
                timeout_graceful_shutdown=int(end_seconds + 1), callback_notify=notify, timeout_notify=1,
            )
        )  # fmt: skip
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        self._shared_socket = shared_socket
        self._on_listening, self._on_closed = on_listening, on_closed

    def serve_until_stopped(self) -> None:
        """Answer requests until :meth:`stop` is called."""
        self.run([self._shared_socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with a long queue for connections that no worker has accepted yet."""
        await super().startup(sockets)
        self._shared_socket.listen(BACKLOG)
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, report that, and finish the running requests."""
        for server in self.servers:
            server.close()
        self._on_closed()
        await super().shutdown(sockets)

    def stop(self) -> None:
        """Stop when the running requests are finished. Any thread may call it."""
        self.should_exit = True


class _HeadTimeoutProtocol(H11Protocol):
    """Closes connections that do not send the whole head of a request in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._update_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _update_timer(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not answering and self._timer is None:
            self._timer = self.loop.call_later(REQUEST_HEAD_SECONDS, self.transport.close)

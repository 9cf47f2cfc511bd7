"""The HTTP server of a worker: uvicorn on a socket that workers share, patient with requests but not with clients."""

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
HEAD_SECONDS = 10.0
"""Seconds that a client may take over the head of a request."""


class HttpServer(uvicorn.Server):
    """Answers on a socket until it is told to end; running requests are answered first."""

    def __init__(
        self,
        application: ASGIApp,
        shared: socket.socket,
        end_seconds: float = 20.0,
        on_open: Callable[[], None] = lambda: None,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        """Set the server up.

        Args:
            application: what answers.
            shared: bound socket.
            end_seconds: longest time that running requests have to end.
            on_open: called when connections are taken.
            on_closed: called when no more connections are taken; running requests go on.
        """
        # Each event loop takes one connection at a time from the shared socket, and leaves the next to the others.
        super().__init__(
            uvicorn.Config(
                application, loop="asyncio", http=_Impatient, ws="none", lifespan="off", log_config=None,
                access_log=False, server_header=False, proxy_headers=False, backlog=1,
                timeout_graceful_shutdown=int(end_seconds + 1),
            )
        )  # fmt: skip
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        self._shared = shared
        self._on_open, self._on_closed = on_open, on_closed

    def run_until_told(self) -> None:
        """Answer until :meth:`end` is called."""
        self.run([self._shared])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, with room for connections that no loop has taken yet."""
        await super().startup(sockets)
        self._shared.listen(BACKLOG)
        self._on_open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, say so, and answer the running requests."""
        for one in self.servers:
            one.close()
        self._on_closed()
        await super().shutdown(sockets)

    def end(self) -> None:
        """Take no more connections, and end when the running requests are answered; may be called by any thread."""
        self.should_exit = True


class _Impatient(H11Protocol):
    """Closes connections whose request does not even begin."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def _watch(self) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif not busy and self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

"""What applies to every request: its name, the headers and the count of its response, and the limit of requests."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxr.serving.rest.problems import ProblemError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cxr.serving.rest.metrics import ServiceMetrics

REQUEST_ID_HEADER = "X-Request-ID"
RETRY_AFTER_SECONDS = 1
"""When a client may try again after it was refused because of too many requests."""
CLOSE_CONNECTION = {"Connection": "close"}
_VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_CLOSED_REQUEST = 499


@dataclass
class Readiness:
    """Whether the service should get requests.

    Attributes:
        draining: whether the service is about to stop. It still answers, but says that it is not ready.
    """

    draining: bool = False


class RequestMiddleware:
    """Names each request, adds headers to its response, and counts it. HEAD is answered as GET, without a body."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics, readiness: Readiness) -> None:
        """Wrap the application.

        Args:
            app: the application.
            metrics: counts the requests.
            readiness: says when the service is about to stop.
        """
        self._app, self._metrics, self._readiness = app, metrics, readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received_id = dict(scope["headers"]).get(REQUEST_ID_HEADER.lower().encode(), b"").decode("latin-1")
        request_id = received_id if _VALID_ID.fullmatch(received_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), _CLIENT_CLOSED_REQUEST
        # Routes know only GET. The server sends no body, because its own scope still names HEAD.
        inner_scope = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (REQUEST_ID_HEADER.lower().encode(), request_id.encode())]
                headers += [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
                if self._readiness.draining and (b"connection", b"close") not in headers:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(inner_scope, receive, send_with_headers)
        finally:
            route: Any = inner_scope.get("route")
            path = getattr(route, "path", "other")
            self._metrics.count_request(scope["method"], path, status, time.perf_counter() - started)


class RequestLimiter:
    """Limits the requests that are accepted and not yet answered, and with them the memory."""

    def __init__(self, max_requests: int) -> None:
        """Set the limit.

        Args:
            max_requests: most requests at once.
        """
        self._max_requests = max_requests
        self._running = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Count one request as running while the block runs.

        Raises:
            ProblemError: 503 if there are too many already.
        """
        if self._running >= self._max_requests:
            raise ProblemError(
                503,
                "overloaded",
                f"expected at most {self._max_requests} requests at once; come again after {RETRY_AFTER_SECONDS} s",
                {"Retry-After": str(RETRY_AFTER_SECONDS), **CLOSE_CONNECTION},
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

"""What every request passes on its way in and out: it gets a name, its answer gets headers, and it is counted."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cxr.serving.rest.metrics import Measurements

HEADER = "X-Request-ID"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass
class Standby:
    """Whether the service takes requests: readiness goes before the service does.

    Attributes:
        leaving: whether the service is about to end.
    """

    leaving: bool = False


class Passage:
    """Around the application."""

    def __init__(self, app: ASGIApp, counted: Measurements, standby: Standby) -> None:
        """Put it around.

        Args:
            app: the application.
            counted: where requests are counted.
            standby: says when the service is about to end.
        """
        self._app, self._counted, self._standby = app, counted, standby

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(HEADER.lower().encode(), b"").decode("latin-1")
        name = given if _NAME.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = name
        started, status = time.perf_counter(), 499  # the client went away

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (HEADER.lower().encode(), name.encode())]
                headers += [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
                if self._standby.leaving and (b"connection", b"close") not in headers:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            route: Any = scope.get("route")
            path = getattr(route, "path", "other")
            self._counted.request(scope["method"], path, status, time.perf_counter() - started)

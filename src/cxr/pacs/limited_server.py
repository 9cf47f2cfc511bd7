"""An association server with limits that pynetdicom lacks: bytes and time of an object, connections, handshakes.

pynetdicom reads as many bytes as a peer announces, up to 4 GiB, before it knows who the peer is; it waits without
end for the rest; and a TLS handshake that stops holds up all further connections.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import Any

from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from cxr.pacs.settings import ReceptionLimits

log = logging.getLogger(__name__)

_MAX_REQUEST_BYTES = 1 << 20
"""Bytes that a peer may send before its association is accepted."""
_MESSAGE_BYTES = 1 << 20
"""Bytes that the command and the headers of the parts of an object may take besides the object itself."""
_WAITING_CONNECTIONS = 4
"""Connections beyond the associations, so that one that is too many is told so."""
_CHUNK = 1 << 16


class LimitedSocket(AssociationSocket):  # type: ignore[misc]  # pynetdicom is not typed here
    """A connection that is closed when a message is too large or takes too long."""

    def __init__(self, association: Any, connection: socket.socket, limits: ReceptionLimits) -> None:
        """Take over a connection.

        Args:
            association: the association that it belongs to.
            connection: the accepted connection.
            limits: what the peer may do.
        """
        connection.settimeout(limits.object_seconds)  # for answers that the peer does not read
        self._limits = limits
        self._received = 0
        self._deadline: float | None = None
        super().__init__(association, client_socket=connection)

    def begin_message(self) -> None:
        """Count from zero again: a message is complete."""
        self._received, self._deadline = 0, None

    def recv(self, nr_bytes: int) -> bytearray:
        """Read bytes of a message.

        Args:
            nr_bytes: how many.

        Returns:
            The bytes; fewer if the peer has closed the connection.

        Raises:
            OSError: if the message is larger or slower than the limits.
        """
        now = time.monotonic()
        established = bool(self.assoc.is_established)
        if self._deadline is None:
            self._deadline = now + (self._limits.object_seconds if established else self._limits.request_seconds)
        limit = self._limits.max_bytes + _MESSAGE_BYTES if established else _MAX_REQUEST_BYTES
        self._received += nr_bytes
        if self._received > limit:
            log.warning("an association was ended: its message has more than %d bytes", limit)
            raise OSError("the message is too large")
        data = bytearray()
        while len(data) < nr_bytes:
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                log.warning("an association was ended: its message did not arrive in time")
                raise TimeoutError("the message did not arrive in time")
            self.socket.settimeout(remaining)
            part = self.socket.recv(min(_CHUNK, nr_bytes - len(data)))
            if not part:
                break
            data += part
        self.socket.settimeout(self._limits.object_seconds)
        return data


class _LimitedRequestHandler(RequestHandler):  # type: ignore[misc]
    def _create_association(self) -> Any:
        association = super()._create_association()
        association.dul.event_queue.get()  # that of the socket that is replaced here; the new one reports the same
        association.dul.socket = LimitedSocket(association, self.request, self.server.limits)
        return association


class LimitedServer(ThreadedAssociationServer):  # type: ignore[misc]
    """Accepts associations within limits."""

    daemon_threads = True
    limits: ReceptionLimits

    def __init__(self, *arguments: Any, limits: ReceptionLimits, **named: Any) -> None:
        """Bind the address; :meth:`serve_forever` accepts.

        Args:
            arguments: as :class:`pynetdicom.transport.AssociationServer`.
            limits: what peers may do.
            named: as :class:`pynetdicom.transport.AssociationServer`.
        """
        self.limits = limits
        super().__init__(*arguments, request_handler=_LimitedRequestHandler, **named)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; its handshake follows in a thread of its own."""
        connection, address = self.socket.accept()
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close connections at once while there are too many."""
        return len(self.active_associations) < self.limits.associations + _WAITING_CONNECTIONS

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, and start the association."""
        if self.ssl_context is not None:
            request.settimeout(self.limits.request_seconds)
            request = self.ssl_context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say that a connection failed, without what the peer has sent."""
        log.warning("a connection from %s was closed: it did not begin as expected", client_address[0])

"""Receives radiographs by C-STORE from titles on a list; an image is on the disk before its sender gets an answer."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from socketserver import BaseServer
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    Verification,
)

from cxr.errors import QueueFullError
from cxr.files import printable_name
from cxr.images.dicom.stored import SUPPORTED_SYNTAXES
from cxr.pacs.image_queue import ImageQueue, short_name
from cxr.pacs.library_messages import silence_libraries
from cxr.pacs.limited_server import LimitedServer
from cxr.pacs.metrics import QUEUE_FULL, REJECTED, NodeMetrics
from cxr.pacs.settings import NodeSettings
from cxr.serving.addresses import address_error

log = logging.getLogger(__name__)

ACCEPTED_CLASSES = (
    ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing
)  # fmt: skip

SUCCESS, OUT_OF_RESOURCES, WRONG_CLASS, NOT_STORED = 0x0000, 0xA700, 0xA900, 0x0110
"""Answers to C-STORE (PS3.4, B.2.3; PS3.7, C.5): stored; full; the data set is of another class; processing failed."""


class StorageProvider:
    """The node's side that senders speak to."""

    def __init__(
        self,
        settings: NodeSettings,
        queue: ImageQueue,
        metrics: NodeMetrics,
        tls: ssl.SSLContext | None,
        on_image: Callable[[], None],
    ) -> None:
        """Bind the address.

        Args:
            settings: settings of the node.
            queue: where images are kept.
            metrics: counts images and associations.
            tls: for connections over TLS; None speaks without.
            on_image: called when an image waits for an answer.

        Raises:
            ParameterError: if the address is not free.
        """
        self._queue, self._limits, self._metrics, self._on_image = queue, settings.queue, metrics, on_image
        silence_libraries()
        limits = settings.reception
        entity = AE(ae_title=settings.title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(limits.callers)
        entity.maximum_associations = limits.associations
        entity.network_timeout = entity.dimse_timeout = limits.idle_seconds
        entity.acse_timeout = limits.request_seconds
        entity.add_supported_context(Verification)
        for accepted in ACCEPTED_CLASSES:
            entity.add_supported_context(accepted, sorted(SUPPORTED_SYNTAXES))
        self._entity = entity
        handlers = [
            (evt.EVT_C_ECHO, self._answer_echo),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_DIMSE_RECV, _begin_message),
            (evt.EVT_ACCEPTED, _begin_message),
            (evt.EVT_ACCEPTED, self._count_association, ["accepted"]),
            (evt.EVT_REJECTED, self._report_rejection),
            (evt.EVT_ABORTED, self._count_association, ["aborted"]),
        ]
        try:
            self._server = entity.make_server(
                (settings.host, settings.port), ssl_context=tls, evt_handlers=handlers, server_class=LimitedServer,
                limits=limits,
            )  # fmt: skip
        except OSError as error:
            raise address_error(settings.host, settings.port, error) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="dicom", daemon=True)

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.server_address[1])

    @property
    def is_alive(self) -> bool:
        """Whether associations are accepted."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Accept associations in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no more associations, and abort the running ones: their senders send again what was not accepted."""
        if self._thread.is_alive():
            BaseServer.shutdown(self._server)  # pynetdicom's own expects that it has started the server
        self._server.server_close()
        for association in self._server.active_associations:
            association.abort()

    def _answer_echo(self, event: Any) -> int:
        return SUCCESS

    def _store(self, event: Any) -> int:
        """Keep an image; the sender gets the status when it is on the disk."""
        request = event.request
        if request.AffectedSOPClassUID != event.context.abstract_syntax:
            self._metrics.received.labels("wrong_class").inc()
            return WRONG_CLASS
        try:
            name = self._queue.name_of(str(request.AffectedSOPInstanceUID), request.DataSet.getvalue())
            if self._queue.is_known(name):
                self._metrics.received.labels("repeated").inc()
                return SUCCESS
            self._queue.accept(name, event.encoded_dataset(), self._limits)
        except QueueFullError as error:
            log.warning("an image was not accepted: %s", error)
            self._metrics.received.labels(QUEUE_FULL).inc()
            return OUT_OF_RESOURCES
        except Exception as error:  # its text may hold values of the image
            log.error("an image was not accepted: %s", type(error).__name__)
            self._metrics.received.labels("failed").inc()
            return NOT_STORED
        log.info("image %s was received", short_name(name))
        self._metrics.received.labels("accepted").inc()
        self._on_image()
        return SUCCESS

    def _count_association(self, event: Any, outcome: str) -> None:
        self._metrics.associations.labels(outcome).inc()

    def _report_rejection(self, event: Any) -> None:
        self._metrics.associations.labels(REJECTED).inc()
        requestor = event.assoc.requestor
        log.warning(
            "an association from %s with the calling title %s was rejected; node.title, node.callers and "
            "node.associations say what is accepted",
            requestor.address, printable_name(str(requestor.ae_title)),
        )  # fmt: skip


def _begin_message(event: Any) -> None:
    event.assoc.dul.socket.begin_message()

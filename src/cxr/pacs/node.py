"""The node: a storage provider, a worker that answers, and a worker that delivers, until the process is interrupted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cxr.errors import DataError
from cxr.pacs.answering import AnsweringWorker
from cxr.pacs.delivery import DeliveryWorker
from cxr.pacs.destinations import open_destination
from cxr.pacs.image_queue import ImageQueue
from cxr.pacs.metrics import NodeMetrics
from cxr.pacs.settings import NodeSettings
from cxr.pacs.status_page import StatusPage
from cxr.pacs.storage_provider import StorageProvider
from cxr.pacs.tls import make_context

if TYPE_CHECKING:
    from cxr.serving.model_provider import DetectorProvider, ModelProvider

log = logging.getLogger(__name__)

_CLEAN_SECONDS = 3600.0
_STOP_SECONDS = 20.0
"""Time that a worker has to finish what it is doing."""


def run_node(
    settings: NodeSettings, open_models: Callable[[ExitStack], tuple[ModelProvider, DetectorProvider | None]]
) -> None:
    """Receive, answer and deliver until an exception, such as an interrupt, ends it.

    Args:
        settings: settings of the node.
        open_models: loads the model, and the detector whose boxes captures show if there is one; what must be closed
            afterwards is put on the stack.

    Raises:
        ParameterError: if an address is not free, another node uses the folder, or a file for TLS cannot be read.
        DataError: if a worker cannot go on.
    """
    from cxr.images.sandbox import SandboxedDecoder

    with ExitStack() as stack:
        queue = ImageQueue(settings.folder)
        stack.enter_context(queue.work())
        metrics = NodeMetrics(queue)
        image_waits, report_waits = threading.Event(), threading.Event()
        tls = make_context(settings.tls, server=True) if settings.tls is not None else None
        destination = open_destination(settings)
        storage = StorageProvider(settings, queue, metrics, tls, image_waits.set)
        stack.callback(storage.stop)
        provider, detectors = open_models(stack)
        decoder = stack.enter_context(
            SandboxedDecoder(
                seconds=settings.read_seconds, max_bytes=settings.reception.max_bytes * 2, options=settings.options
            )
        )
        answering = AnsweringWorker(
            queue, provider, detectors, decoder, metrics,
            capture=settings.capture, deidentified=settings.deidentified, on_report=report_waits.set,
        )  # fmt: skip
        delivery = DeliveryWorker(queue, destination, settings.delivery, metrics)

        threads = [
            _Worker("answering", answering.work, image_waits),
            _Worker("delivery", delivery.work, report_waits),
        ]

        def problem() -> str | None:
            stopped = [thread.name for thread in threads if not thread.is_alive()]
            stopped += [] if storage.is_alive else ["reception"]
            return f"stopped: {', '.join(stopped)}" if stopped else None

        page = StatusPage(settings.status_host, settings.status_port, metrics.registry, problem)
        stack.callback(page.close)
        for thread in threads:
            thread.start()
            stack.callback(thread.stop)
        storage.start()
        log.info(
            "%s receives images on %s:%d; health and metrics on http://%s:%d",
            settings.title, settings.host, storage.port, settings.status_host, page.port,
        )  # fmt: skip
        cleaned = 0.0
        while (text := problem()) is None:
            if time.monotonic() - cleaned > _CLEAN_SECONDS or not cleaned:
                queue.forget_old_answers(settings.queue.keep_seconds)
                cleaned = time.monotonic()
            time.sleep(1.0)
        raise DataError(f"expected all parts of the node to run, received {text}; the log says why, start it again")


class _Worker(threading.Thread):
    """Calls a function again after the time that it returns, or as soon as an event is set."""

    def __init__(self, name: str, work: Callable[[], float], event: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self._work, self._event = work, event
        self._stopped = threading.Event()

    def run(self) -> None:
        """Work until :meth:`stop`."""
        try:
            while not self._stopped.is_set():
                self._event.clear()
                self._event.wait(self._work())
        except (
            Exception
        ) as error:  # its text may hold values of an image; the node ends, and its supervisor restarts it
            log.error("%s stopped: %s", self.name, type(error).__name__)

    def stop(self) -> None:
        """Let the work that is going on end, and stop."""
        self._stopped.set()
        self._event.set()
        self.join(_STOP_SECONDS)

"""Measurements for Prometheus, over all workers: each writes a file, and whoever is asked adds them up."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from cxr.serving.model_provider import Served
    from cxr.serving.rest.schemas import ImageAnswer

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder of the files; it must be set before this module is imported."""
MEDIA_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SHARES = tuple(number / 20 for number in range(1, 21))
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")


class Measurements:
    """What one worker counts. Labels have few values: no names, no addresses, nothing of a client."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "cxr_requests", "Requests that were answered.", ("method", "path", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "cxr_request_seconds", "Seconds from head of request to end of answer.", ("path",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.image_seconds = Histogram(
            "cxr_image_seconds", "Seconds to read an image, to look at it, and for the network to answer.", ("phase",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.predictions = Counter("cxr_predictions", "Answers.", ("label", "version"), registry=registry)
        self.probability = Histogram(
            "cxr_probability", "Calibrated probabilities of pneumonia.", buckets=SHARES, registry=registry
        )
        self.refusals = Counter("cxr_refusals", "Pictures that are no chest film.", ("kind",), registry=registry)
        self.errors = Counter("cxr_image_errors", "Images that could not be read.", ("problem",), registry=registry)
        self.in_flight = Gauge(
            "cxr_images_in_flight", "Images that are being read or answered.",
            multiprocess_mode="livesum", registry=registry,
        )  # fmt: skip
        self.workers = Gauge(
            "cxr_workers", "Workers that answer with this version.", ("version", "alias", "model"),
            multiprocess_mode="livesum", registry=registry,
        )  # fmt: skip
        self.reloaded = Gauge(
            "cxr_last_reload_timestamp_seconds", "When a worker last began to answer with a version.",
            multiprocess_mode="livemax", registry=registry,
        )  # fmt: skip
        self.stuck = Gauge(
            "cxr_workers_behind", "Workers that do not answer with the version that has the alias.",
            multiprocess_mode="livesum", registry=registry,
        )  # fmt: skip
        self.replaced = Counter("cxr_workers_replaced", "Workers that ended and were replaced.", registry=registry)
        self._served: Served | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a part of the work.

        Args:
            name: ``"reading"``, ``"looking"`` or ``"network"``.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            self.image_seconds.labels(name).observe(time.perf_counter() - started)

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            method: its method.
            path: path of the route that answered; ``"other"`` if none did.
            status: HTTP status of the answer.
            seconds: what it took.
        """
        self.requests.labels(method if method in METHODS else "other", path, str(status)).inc()
        self.request_seconds.labels(path).observe(seconds)

    def answer(self, served: Served, answer: ImageAnswer) -> None:
        """Count the answer for an image.

        Args:
            served: version that gave it.
            answer: the answer.
        """
        if answer.error is not None:
            self.errors.labels(answer.error.problem).inc()
        elif answer.refusal is not None:
            self.refusals.labels(answer.refusal.kind).inc()
        elif answer.probability is not None and answer.label is not None:
            self.predictions.labels(answer.label, served.version).inc()
            self.probability.observe(answer.probability)

    def state(self, served: Served, problem: str | None) -> None:
        """Take note of the version that answers.

        Args:
            served: the version.
            problem: why the version that has the alias doesn't answer, None if it does.
        """
        self.stuck.set(problem is not None)
        if served is self._served:
            return
        if self._served is not None:
            self._workers(self._served).set(0)
        self._workers(served).set(1)
        self.reloaded.set(served.since.timestamp())
        self._served = served

    def _workers(self, served: Served) -> Gauge:
        return self.workers.labels(served.version, served.alias, served.card.model)

    def text(self) -> bytes:
        """Write all down.

        Returns:
            Text in Prometheus' format, of all workers if they share a folder, else of this process.
        """
        folder = os.environ.get(FOLDER)
        if folder is None:
            return generate_latest(self.registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        together = CollectorRegistry()
        MultiProcessCollector(together, folder)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def forget(process: int, folder: Path) -> None:
    """Forget the present state of a process that has ended; what it counted stays.

    Args:
        process: its id.
        folder: folder of the files.
    """
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call]

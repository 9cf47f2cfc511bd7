"""Prometheus metrics of all workers: each writes a file of its own, and the worker that is asked adds them up."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from cxr.serving.rest.settings import METRICS_FOLDER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cxr.serving.detector_source import ServedDetector
    from cxr.serving.rest.schemas import ImageResult, RegionResult
    from cxr.serving.served_model import ServedModel, ServedVersion

METRICS_TYPE = CONTENT_TYPE_LATEST
SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PROBABILITY_BUCKETS = tuple(number / 20 for number in range(1, 21))
TRIES, PAUSE = 20, 0.005
"""How often the files of the workers are read again if one is being made, and seconds in between."""
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")


class ServiceMetrics:
    """The metrics of one worker. Labels have few values, and none that comes from a client."""

    def __init__(self) -> None:
        """Create the metrics, all at zero."""
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "cxr_requests", "Requests that were answered.", ("method", "path", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "cxr_request_seconds", "Seconds from the head of a request to the end of its response.", ("path",),
            buckets=SECONDS_BUCKETS, registry=registry,
        )  # fmt: skip
        self.image_seconds = Histogram(
            "cxr_image_seconds", "Seconds to decode an image, to check and prepare it, to predict, and to draw boxes.",
            ("phase",),
            buckets=SECONDS_BUCKETS, registry=registry,
        )  # fmt: skip
        self.predictions = Counter("cxr_predictions", "Predictions.", ("label", "version"), registry=registry)
        self.probability = Histogram(
            "cxr_probability", "Calibrated probabilities of pneumonia.", buckets=PROBABILITY_BUCKETS, registry=registry
        )
        self.refusals = Counter(
            "cxr_refusals", "Images that do not look like chest radiographs.", ("kind",), registry=registry
        )
        self.errors = Counter("cxr_image_errors", "Images that could not be read.", ("problem",), registry=registry)
        self.in_flight = Gauge(
            "cxr_images_in_flight", "Images of the running requests.", multiprocess_mode="livesum", registry=registry
        )
        self.workers = VersionGauge("cxr_workers", "Workers that answer with this version.", registry)
        self.reloaded = Gauge(
            "cxr_last_reload_timestamp_seconds", "When a worker last began to answer with a version.",
            multiprocess_mode="livemax", registry=registry,
        )  # fmt: skip
        self.behind = Gauge(
            "cxr_workers_behind", "Workers that do not answer with the version that has the alias.",
            multiprocess_mode="livesum", registry=registry,
        )  # fmt: skip
        self.searched = Counter(
            "cxr_searched_images", "Images in which the detector looked for opacities.", ("opacity", "version"),
            registry=registry,
        )  # fmt: skip
        self.regions = Counter("cxr_regions", "Boxes that the detector drew.", ("version",), registry=registry)
        self.detectors = VersionGauge("cxr_detector_workers", "Workers that draw boxes with this version.", registry)
        self.detectors_behind = Gauge(
            "cxr_detector_workers_behind", "Workers that do not draw boxes with the version that has the alias.",
            multiprocess_mode="livesum", registry=registry,
        )  # fmt: skip
        self.replaced = Counter("cxr_workers_replaced", "Workers that ended and were replaced.", registry=registry)

    @contextmanager
    def time_phase(self, phase: str) -> Iterator[None]:
        """Measure the time of the block.

        Args:
            phase: ``"reading"`` (decoding), ``"looking"`` (checking and preparing), ``"network"``, or ``"regions"``
                (drawing boxes).
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            self.image_seconds.labels(phase).observe(time.perf_counter() - started)

    def count_request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            method: its method.
            path: path of its route; ``"other"`` if there is none.
            status: HTTP status of the response.
            seconds: time from the head of the request to the end of the response.
        """
        self.requests.labels(method if method in METHODS else "other", path, str(status)).inc()
        self.request_seconds.labels(path).observe(seconds)

    def count_result(self, served: ServedModel, result: ImageResult) -> None:
        """Count the result for an image.

        Args:
            served: the version that predicted.
            result: the result.
        """
        if result.error is not None:
            self.errors.labels(result.error.problem).inc()
        elif result.refusal is not None:
            self.refusals.labels(result.refusal.kind).inc()
        elif result.probability is not None and result.label is not None:
            self.predictions.labels(result.label, served.version).inc()
            self.probability.observe(result.probability)

    def set_model(self, served: ServedModel, problem: str | None) -> None:
        """Set the gauges of the version that answers.

        Args:
            served: the version.
            problem: why the version that has the alias does not answer; None if it does.
        """
        self.behind.set(problem is not None)
        self.workers.move_to(served)
        self.reloaded.set(served.since.timestamp())

    def count_regions(self, detector: ServedDetector, regions: Sequence[RegionResult]) -> None:
        """Count the boxes of an image.

        Args:
            detector: the detector that drew them.
            regions: the boxes.
        """
        self.searched.labels("yes" if regions else "no", detector.version).inc()
        self.regions.labels(detector.version).inc(len(regions))

    def set_detector(self, detector: ServedDetector | None, problem: str | None) -> None:
        """Set the gauges of the detector that draws boxes.

        Args:
            detector: the detector; None if there is none.
            problem: why the version that has the alias draws no boxes; None if it does.
        """
        self.detectors_behind.set(problem is not None)
        self.detectors.move_to(detector)

    def export(self) -> bytes:
        """Write the metrics in Prometheus' text format.

        Returns:
            The metrics of all workers if they share a folder, else of this process.
        """
        folder = os.environ.get(METRICS_FOLDER_VARIABLE)
        if folder is None:
            return generate_latest(self.registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        for _ in range(TRIES):
            with suppress(struct.error):  # a worker that starts has made its file, and not written the length into it
                return generate_latest(registry)
            time.sleep(PAUSE)
        return generate_latest(registry)


class VersionGauge:
    """The number of workers that use a version, with the labels version, alias and model."""

    def __init__(self, name: str, description: str, registry: CollectorRegistry) -> None:
        """Create the gauge; this worker uses no version yet.

        Args:
            name: name of the metric.
            description: what it counts.
            registry: the registry of the worker's metrics.
        """
        self._gauge = Gauge(
            name, description, ("version", "alias", "model"), multiprocess_mode="livesum", registry=registry
        )
        self._current: ServedVersion | None = None

    def move_to(self, served: ServedVersion | None) -> None:
        """Count this worker at another version.

        Args:
            served: the version that it uses now; None for none.
        """
        if served is self._current:
            return
        for version, value in ((self._current, 0), (served, 1)):
            if version is not None:
                self._gauge.labels(version.version, version.alias, version.metadata.model).set(value)
        self._current = served

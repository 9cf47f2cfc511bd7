"""Prometheus metrics of the shadow. They exist only in a service with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cxr.serving.rest.metrics import SECONDS_BUCKETS, VersionGauge

if TYPE_CHECKING:
    from cxr.serving.served_model import ServedModel


class ShadowMetrics:
    """The metrics of the shadow of one worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Create the metrics, all at zero.

        Args:
            registry: the registry of the service's other metrics.
        """
        self.answers = Counter(
            "cxr_shadow_answers", "Images that the shadow has answered too, and whether it agrees.",
            ("version", "agrees"), registry=registry,
        )  # fmt: skip
        self.dropped = Counter(
            "cxr_shadow_dropped",
            "Images that the shadow did not answer, because its queue was full.",
            registry=registry,
        )
        self.errors = Counter(
            "cxr_shadow_errors", "Images for which the shadow has failed.", ("version",), registry=registry
        )
        self.seconds = Histogram(
            "cxr_shadow_seconds", "Seconds of the shadow to check, prepare and predict an image.",
            buckets=SECONDS_BUCKETS, registry=registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "cxr_shadow_images_waiting", "Images that wait for the shadow.", multiprocess_mode="livesum",
            registry=registry,
        )  # fmt: skip
        self.workers = VersionGauge("cxr_shadow_workers", "Workers with this version as the shadow.", registry)
        self.behind = Gauge(
            "cxr_shadow_workers_behind", "Workers that could not load the version with the shadow's alias.",
            multiprocess_mode="livesum", registry=registry,
        )  # fmt: skip

    def set_shadow(self, shadow: ServedModel | None, problem: str | None, waiting: int) -> None:
        """Set the gauges.

        Args:
            shadow: the version that answers unseen; None for none.
            problem: why the version that has the alias is not the shadow; None if nothing is wrong.
            waiting: number of images that wait for it.
        """
        self.behind.set(problem is not None)
        self.waiting.set(waiting)
        self.workers.move_to(shadow)

"""Prometheus metrics of the node. No label has a value that a sender or an image gives."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cxr.pacs.image_queue import ImageQueue

ANSWER_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
QUEUE_FULL, REJECTED = "queue_full", "rejected"
"""Result of an image that there is no room for; outcome of an association that is not accepted."""
DELIVERY_BUCKETS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)


class NodeMetrics:
    """The metrics of a node, all at zero at first."""

    def __init__(self, queue: ImageQueue) -> None:
        """Create the metrics.

        Args:
            queue: its lengths are read whenever the metrics are.
        """
        self.registry = registry = CollectorRegistry()
        self.associations = Counter(
            "cxr_node_associations", "Associations by outcome.", ("outcome",), registry=registry
        )
        self.received = Counter(
            "cxr_node_received", "Images that were sent, by result.", ("result",), registry=registry
        )
        # Alerts ask for these two. A series that begins with its first event has no increase by it.
        self.associations.labels(REJECTED)
        self.received.labels(QUEUE_FULL)
        self.answered = Counter(
            "cxr_node_answered", "Images with a prediction.", ("label", "version"), registry=registry
        )
        self.refused = Counter(
            "cxr_node_refused", "Images whose report says why there is no prediction.", ("kind",), registry=registry
        )
        self.delivered = Counter("cxr_node_delivered", "Reports that were accepted.", ("report",), registry=registry)
        self.failed = Counter(
            "cxr_node_delivery_failures", "Attempts to deliver that failed.", ("reason",), registry=registry
        )
        self.dead = Counter(
            "cxr_node_dead", "Images and deliveries that were given up.", ("reason",), registry=registry
        )
        self.answer_seconds = Histogram(
            "cxr_node_answer_seconds", "Seconds to read an image, predict and write its reports.",
            buckets=ANSWER_BUCKETS, registry=registry,
        )  # fmt: skip
        self.delivery_seconds = Histogram(
            "cxr_node_delivery_seconds", "Seconds from the answer to the delivery of all its reports.",
            buckets=DELIVERY_BUCKETS, registry=registry,
        )  # fmt: skip
        self.behind = Gauge(
            "cxr_node_behind", "Whether another version than the one with the alias answers.", registry=registry
        )
        for place, meaning in (
            ("received", "Images that wait for an answer."),
            ("outgoing", "Images whose reports wait for delivery."),
            ("dead", "Dead letters, which wait for a person."),
        ):
            gauge = Gauge("cxr_node_waiting_" + place, meaning, registry=registry)
            gauge.set_function(lambda place=place: queue.counts()[place])  # type: ignore[misc]

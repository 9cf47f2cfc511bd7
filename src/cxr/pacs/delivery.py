"""Sends reports to their destination, again and again while it is away, and gives up after the limits."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from cxr.errors import DeliveryError, RefusedReportError
from cxr.pacs.destinations import Connection, Destination
from cxr.pacs.image_queue import DeliveryState, ImageQueue, WaitingDelivery, short_name
from cxr.pacs.metrics import NodeMetrics
from cxr.pacs.settings import DeliveryPolicy

log = logging.getLogger(__name__)

AWAY, REFUSED, EXPIRED = "away", "refused", "expired"
"""Reasons of failures: the destination is away; it refuses a report; it was away for too long."""
LOOK_SECONDS = 2.0
"""Time between two looks at the folders, for what a person has put back."""
_BATCH = 50
"""Most images whose reports share a connection."""


class DeliveryWorker:
    """Delivers what waits in the queue."""

    def __init__(
        self, queue: ImageQueue, destination: Destination, policy: DeliveryPolicy, metrics: NodeMetrics
    ) -> None:
        """Connect the parts.

        Args:
            queue: the queue.
            destination: where reports go.
            policy: how often a report is sent.
            metrics: counts deliveries and failures.
        """
        self._queue, self._destination, self._policy, self._metrics = queue, destination, policy, metrics
        self._delay, self._next_attempt = 0.0, 0.0
        """Seconds between the attempts while the destination is away, 0 while it is not; and when the next one is."""

    def work(self) -> float:
        """Deliver some of what is due.

        Returns:
            Longest time to wait before the next call, seconds; 0 if more may be due.
        """
        if (remaining := self._next_attempt - time.monotonic()) > 0:
            return remaining
        now = time.time()
        due = [delivery for delivery in self._queue.deliveries() if delivery.state.next_attempt <= now][:_BATCH]
        if not due:
            return LOOK_SECONDS
        try:
            with self._destination.connect([report for delivery in due for report in delivery.reports]) as connection:
                for delivery in due:
                    self._deliver(connection, delivery)
        except DeliveryError as error:
            self._note_absence(str(error))
        return self._delay

    def _deliver(self, connection: Connection, delivery: WaitingDelivery) -> None:
        for report in delivery.reports:
            try:
                connection.send(report)
            except RefusedReportError as error:
                self._note_refusal(delivery, str(error))
                return
            except DeliveryError:  # others are sent before it, in case that it is the reason
                later = time.time() + self._policy.longest_seconds
                self._queue.postpone(delivery.name, replace(delivery.state, next_attempt=later))
                raise
            self._queue.forget_report(report)
            self._metrics.delivered.labels(report.stem.partition("-")[2]).inc()
            self._note_answering()
        self._queue.finish(delivery.name)
        self._metrics.delivery_seconds.observe(max(0.0, time.time() - delivery.state.since))
        log.info("the reports of image %s are delivered", short_name(delivery.name))

    def _note_answering(self) -> None:
        if self._delay:
            log.info("the destination takes reports again")
        self._delay = 0.0

    def _note_absence(self, reason: str) -> None:
        """Wait longer after each failure, and give up reports that have waited too long."""
        self._metrics.failed.labels(AWAY).inc()
        first = not self._delay
        self._delay = min(2 * self._delay or self._policy.first_seconds, self._policy.longest_seconds)
        self._next_attempt = time.monotonic() + self._delay
        if first:
            log.warning("the destination takes no reports: %s; they wait", reason)
        oldest = time.time() - self._policy.give_up_seconds
        for delivery in self._queue.deliveries():
            if delivery.state.since < oldest:
                self._give_up(delivery, replace(delivery.state, reason=f"{EXPIRED}: {reason}"), EXPIRED)

    def _note_refusal(self, delivery: WaitingDelivery, reason: str) -> None:
        self._metrics.failed.labels(REFUSED).inc()
        attempts = delivery.state.attempts + 1
        delay = min(self._policy.first_seconds * 2 ** (attempts - 1), self._policy.longest_seconds)
        state = replace(
            delivery.state, attempts=attempts, next_attempt=time.time() + delay, reason=f"{REFUSED}: {reason}"
        )
        if attempts >= self._policy.attempts:
            self._give_up(delivery, state, REFUSED)
            return
        log.warning(
            "the destination refuses a report of image %s (%s); attempt %d of %d follows in %g s",
            short_name(delivery.name), reason, attempts + 1, self._policy.attempts, delay,
        )  # fmt: skip
        self._queue.postpone(delivery.name, state)

    def _give_up(self, delivery: WaitingDelivery, state: DeliveryState, kind: str) -> None:
        self._queue.give_up_delivery(delivery.name, state)
        self._metrics.dead.labels(kind).inc()
        log.error(
            "the reports of image %s are dead letters (%s); see `cxr node_status`",
            short_name(delivery.name), state.reason,
        )  # fmt: skip

"""Lists what a queue holds, for people, without anything about a patient."""

from __future__ import annotations

from collections.abc import Sequence

from cxr.pacs.image_queue import ImageQueue, WaitingDelivery, short_name


def list_queue(queue: ImageQueue, now: float) -> list[str]:
    """Write the state of a queue.

    Args:
        queue: the queue.
        now: the time, seconds since 1970.

    Returns:
        Lines: three counts, then one line for each delivery that has failed, and for each dead letter.
    """
    counts = queue.counts()
    failing = [delivery for delivery in queue.deliveries() if delivery.state.reason]
    return [
        f"{counts['received']} images wait for an answer",
        f"{counts['outgoing']} images wait for the delivery of their reports",
        *_describe(failing, now),
        f"{counts['dead']} dead letters",
        *_describe(queue.dead_letters(), now),
    ]


def _describe(deliveries: Sequence[WaitingDelivery], now: float) -> list[str]:
    return [
        f"  {short_name(delivery.name)}  {_age(now - delivery.state.since)}  {delivery.state.reason}"
        for delivery in deliveries
    ]


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"

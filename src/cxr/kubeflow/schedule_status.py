"""Whether a schedule fired when it should have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cxr.kubeflow.cron import Cron, parse_cron, time_zone

GOING_ON = frozenset({"PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED"})


@dataclass(frozen=True)
class Firing:
    """The state of one recurring run.

    Attributes:
        identity: the server's id.
        enabled: False if it is paused.
        words: when it fires, in words; the server's own expression if it cannot be read.
        last: the newest run, or None.
        next: when it fires next; None if it is paused, or never.
        problem: why it did not fire when it should have; empty if it did.
    """

    identity: str
    enabled: bool
    words: str
    last: Any
    next: datetime | None
    problem: str


def firing(recurring: Any, runs: list[Any], zone: str, tolerance: timedelta, now: datetime) -> Firing:
    """Judge a recurring run by the runs that it started.

    Args:
        recurring: a ``V2beta1RecurringRun``.
        runs: its runs, the newest first.
        zone: time zone of the cluster's schedules.
        tolerance: how late a run may begin.
        now: the present moment, with a time zone.

    Returns:
        What was found.
    """
    enabled = recurring.status != "DISABLED"
    last = runs[0] if runs else None
    schedule = recurring.trigger.cron_schedule if recurring.trigger else None
    text = schedule.cron if schedule else ""
    try:
        cron = parse_cron(text)
    except ValueError:
        words = f"cron {text!r}" if text else "no cron, but a period"
        return Firing(recurring.recurring_run_id, enabled, words, last, None, "")
    return Firing(
        identity=recurring.recurring_run_id,
        enabled=enabled,
        words=cron.words(zone),
        last=last,
        next=next(cron.dates(now, time_zone(zone)), None) if enabled else None,
        problem=_missed(recurring, cron, runs, zone, tolerance, now) if enabled else "",
    )


def _missed(recurring: Any, cron: Cron, runs: list[Any], zone: str, tolerance: timedelta, now: datetime) -> str:
    """Why there is no run for the last date that has passed; empty if there is one, or none was due."""
    local = time_zone(zone)
    due = cron.last(now - tolerance, local)
    made = recurring.created_at
    if due is None or (made is not None and due <= made):
        return ""
    # A run is named by the date that it was due at; one that waited for another may carry a later one.
    if any(moment >= due for run in runs for moment in (run.scheduled_at, run.created_at) if moment is not None):
        return ""
    what = f"expected a run at {due:%a %Y-%m-%d %H:%M:%S} {zone}, received none by {now.astimezone(local):%a %H:%M}"
    busy = [run.run_id for run in runs if run.state in GOING_ON]
    if busy and len(busy) >= int(recurring.max_concurrency or 1):
        return f"{what}: {', '.join(busy)} is still going on, and max_concurrency={recurring.max_concurrency}"
    return (
        f"{what}: unless it was paused then, look at the log of the deployment ml-pipeline-scheduledworkflow, "
        "and make the schedule anew with `cxr kubeflow schedule`"
    )


def utc(moment: datetime | None) -> str:
    """Write a moment.

    Args:
        moment: with a time zone; None is unknown.

    Returns:
        For example ``"2026-11-23 02:00:04 UTC"``, or ``"-"``.
    """
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else "-"

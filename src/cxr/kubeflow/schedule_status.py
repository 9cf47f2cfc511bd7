"""Whether a schedule started its runs when it should have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cxr.kubeflow.cron import CronSchedule, find_time_zone, parse_cron

UNFINISHED_STATES = frozenset({"PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED"})


@dataclass(frozen=True)
class ScheduleStatus:
    """The state of one recurring run.

    Attributes:
        name: its name.
        enabled: False if it is paused.
        description: when it starts runs; the server's own expression if it cannot be read.
        last_run: the newest run; None if there is none.
        next_date: when it starts the next run; None if it is paused, or never.
        problem: why it did not start a run when it should have; empty if it did.
    """

    name: str
    enabled: bool
    description: str
    last_run: Any
    next_date: datetime | None
    problem: str


def check_schedule(
    recurring_run: Any, runs: list[Any], zone: str, tolerance: timedelta, now: datetime
) -> ScheduleStatus:
    """Check a recurring run by the runs that it started.

    Args:
        recurring_run: a ``V2beta1RecurringRun``.
        runs: its runs, the newest first.
        zone: time zone of the cluster's schedules.
        tolerance: how late a run may start.
        now: the current time, with a time zone.

    Returns:
        Its state.
    """
    enabled = recurring_run.status != "DISABLED"
    last_run = runs[0] if runs else None
    schedule = recurring_run.trigger.cron_schedule if recurring_run.trigger else None
    text = schedule.cron if schedule else ""
    try:
        cron = parse_cron(text)
    except ValueError:
        description = f"cron {text!r}" if text else "no cron, but a period"
        return ScheduleStatus(recurring_run.display_name, enabled, description, last_run, None, "")
    return ScheduleStatus(
        name=recurring_run.display_name,
        enabled=enabled,
        description=cron.describe(zone),
        last_run=last_run,
        next_date=next(cron.dates(now, find_time_zone(zone)), None) if enabled else None,
        problem=_missed_run(recurring_run, cron, runs, zone, tolerance, now) if enabled else "",
    )


def _missed_run(
    recurring_run: Any, cron: CronSchedule, runs: list[Any], zone: str, tolerance: timedelta, now: datetime
) -> str:
    """Why there is no run for the last date; empty if there is one, or none was due."""
    local_zone = find_time_zone(zone)
    due = cron.last(now - tolerance, local_zone)
    created = recurring_run.created_at
    if due is None or (created is not None and due <= created):
        return ""
    # scheduled_at is the date that a run was due; a run that waited for another one may have a later date.
    if any(date >= due for run in runs for date in (run.scheduled_at, run.created_at) if date is not None):
        return ""
    problem = (
        f"expected a run at {due:%a %Y-%m-%d %H:%M:%S} {zone}, received none by {now.astimezone(local_zone):%a %H:%M}"
    )
    unfinished = [run.run_id for run in runs if run.state in UNFINISHED_STATES]
    if unfinished and len(unfinished) >= int(recurring_run.max_concurrency or 1):
        return (
            f"{problem}: {', '.join(unfinished)} is still running, and max_concurrency={recurring_run.max_concurrency}"
        )
    return (
        f"{problem}: unless it was paused then, look at the log of the deployment ml-pipeline-scheduledworkflow, "
        "and create the schedule again with `cxr kubeflow schedule`"
    )


def format_utc(moment: datetime | None) -> str:
    """Format a time with a time zone, e.g. ``"2026-11-23 02:00:04 UTC"``; ``"-"`` for None."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else "-"

"""Schedule: let the cluster run a pipeline regularly."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from cxr.errors import ClusterError
from cxr.kubeflow.actions.base import ScheduleAction, SubmittingAction
from cxr.kubeflow.cron import find_time_zone, parse_cron

DATES_SHOWN = 3
"""Number of next dates that are shown."""


class ScheduleRuns(ScheduleAction, SubmittingAction):
    """Let the cluster run a pipeline regularly; an older schedule with the same name is replaced."""

    name: ClassVar[str] = "kubeflow schedule"
    follows: ClassVar[str] = "submit"

    cron: Annotated[
        str,
        Field(
            description="When: second minute hour day month weekday, e.g. '0 0 2 * * MON'; the five fields of crontab "
            "and macros such as @weekly are accepted, too."
        ),
    ] = "0 0 2 * * MON"
    time_zone: Annotated[
        str,
        Field(
            description="Time zone of the cluster's schedules, for the dates shown here; it is set on the cluster "
            "(CRON_SCHEDULE_TIMEZONE), for all schedules."
        ),
    ] = "UTC"
    enabled: Annotated[bool, Field(description="false creates the schedule paused.")] = True
    no_catchup: Annotated[bool, Field(description="Whether missed dates are skipped.")] = True
    max_concurrency: Annotated[int, Field(ge=1, le=10, description="Largest number of its runs at the same time.")] = 1

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, cron: str) -> str:
        parse_cron(cron)
        return cron

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, zone: str) -> str:
        find_time_zone(zone)
        return zone

    def run(self) -> None:
        """Create the new schedule, then delete the older ones with its name.

        A recurring run cannot be changed, and its name need not be unique. The new one is created first: if that
        fails, the older ones remain. After an interruption the same command leaves one schedule.
        """
        packages = self.read_packages()
        cluster = self.cluster()
        created_ids = []
        for number, package in enumerate(packages, start=1):
            try:
                created = cluster.create_recurring_run(
                    self.run_spec(cluster, package, self.part_name(number)),
                    parse_cron(self.cron),
                    enabled=self.enabled,
                    no_catchup=self.no_catchup,
                    max_concurrency=self.max_concurrency,
                )
            except ClusterError as error:
                raise ClusterError(
                    f"{error}\nolder schedules with the name {self.schedule!r} are unchanged; the same command, run "
                    "again, leaves one schedule"
                ) from error
            created_ids.append(created.recurring_run_id)
        identities = [recurring_run.recurring_run_id for recurring_run in self.recurring_runs(cluster)]
        older_ids = [identity for identity in identities if identity not in created_ids]
        for position, identity in enumerate(older_ids):
            try:
                cluster.delete_recurring_run(identity)
            except ClusterError as error:
                raise ClusterError(
                    f"{error}\nthe new schedule {', '.join(created_ids)} exists, but {len(older_ids) - position} "
                    "older one(s) would run as well; run the same command again"
                ) from error
        pages = [cluster.page_url("recurringrun", identity) for identity in created_ids]
        self._show_schedule(pages, len(older_ids))

    def _show_schedule(self, page_urls: list[str], replaced: int) -> None:
        cron, zone = parse_cron(self.cron), find_time_zone(self.time_zone)
        if cron.note:
            self.show(cron.note)
        state = "" if self.enabled else ", paused"
        dates = islice(cron.dates(datetime.now(UTC), zone), DATES_SHOWN)
        self.show(
            f"{self.schedule}: {cron.describe(self.time_zone)}{state}; it replaces {replaced} older",
            f"next: {', '.join(f'{date:%a %Y-%m-%d %H:%M:%S}' for date in dates)} {self.time_zone}",
            *page_urls,
        )

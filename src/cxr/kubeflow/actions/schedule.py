"""Schedule: have the cluster run a pipeline again and again."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from cxr.errors import ClusterError
from cxr.kubeflow.actions.base import Named, Started
from cxr.kubeflow.cron import parse_cron, time_zone

SHOWN = 3
"""Next dates that are shown."""


class Schedule(Named, Started):
    """Have the cluster run a pipeline again and again; what had this name before is replaced."""

    name: ClassVar[str] = "kubeflow schedule"

    cron: Annotated[
        str,
        Field(
            description="When: second minute hour day month weekday, e.g. '0 0 2 * * MON'; the five fields of crontab "
            "and @weekly are understood, too."
        ),
    ] = "0 0 2 * * MON"
    time_zone: Annotated[
        str,
        Field(
            description="Time zone of the cluster's schedules, for the dates shown here; it is set on the cluster "
            "(CRON_SCHEDULE_TIMEZONE), for all schedules."
        ),
    ] = "UTC"
    enabled: Annotated[bool, Field(description="false makes the schedule paused.")] = True
    no_catchup: Annotated[bool, Field(description="Whether dates that were missed are left out.")] = True
    max_concurrency: Annotated[int, Field(ge=1, le=10, description="How many of its runs may go on at once.")] = 1

    @field_validator("cron")
    @classmethod
    def _readable(cls, cron: str) -> str:
        parse_cron(cron)
        return cron

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, zone: str) -> str:
        time_zone(zone)
        return zone

    def run(self) -> None:
        """Make the new schedule, then delete the older ones of its name.

        A recurring run cannot be changed. Its name need not be unique: the new one is made first, so that a failure
        leaves the older ones as they were, and whatever is cut off is put in order by the same command.
        """
        from cxr.kubeflow.run_spec import Work

        package = self.read()
        cluster = self.cluster()
        cron = parse_cron(self.cron)
        work = Work(
            name=self.schedule,
            version=self.upload(cluster, package),
            experiment_id=cluster.experiment(self.experiment),
            arguments=self.arguments,
            service_account=self.service_account,
            pipeline_root=self.pipeline_root,
        )
        try:
            made = cluster.schedule(
                work,
                cron,
                enabled=self.enabled,
                no_catchup=self.no_catchup,
                max_concurrency=self.max_concurrency,
            )
        except ClusterError as error:
            raise ClusterError(
                f"{error}\nwhat was scheduled before as {self.schedule!r} is as it was; the same command, run again, "
                "leaves one schedule"
            ) from error
        older = [one for one in cluster.recurring(self.schedule) if one.recurring_run_id != made.recurring_run_id]
        for place, one in enumerate(older):
            try:
                cluster.unschedule(one.recurring_run_id)
            except ClusterError as error:
                raise ClusterError(
                    f"{error}\nthe new schedule {made.recurring_run_id} stands, but {len(older) - place} older one(s) "
                    "beside it would run as well; run the same command again"
                ) from error
        self._tell(cluster.page("recurringrun", made.recurring_run_id), len(older))

    def _tell(self, page: str, replaced: int) -> None:
        """Say what the schedule is."""
        cron, zone = parse_cron(self.cron), time_zone(self.time_zone)
        if cron.note:
            self.show(cron.note)
        state = "" if self.enabled else " (paused)"
        dates = islice(cron.dates(datetime.now(UTC), zone), SHOWN)
        self.show(
            f"{self.schedule}: {cron.words(self.time_zone)}{state}, in place of {replaced} older",
            f"next: {', '.join(f'{date:%a %Y-%m-%d %H:%M:%S}' for date in dates)} {self.time_zone}",
            page,
        )

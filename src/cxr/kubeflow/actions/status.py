"""Status: show schedules, their next dates, and the state of the last runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from cxr.errors import ClusterError
from cxr.kubeflow.actions.base import ScheduleAction
from cxr.kubeflow.cron import find_time_zone

if TYPE_CHECKING:
    from cxr.kubeflow.cluster import KubeflowCluster
    from cxr.kubeflow.schedule_status import ScheduleStatus

RUNS_CHECKED = 20
"""Runs of a schedule among which the one for its last date is looked for."""


class ShowStatus(ScheduleAction):
    """Show the schedule and the last runs; exit status 1 if the schedule did not start a run when it should have."""

    name: ClassVar[str] = "kubeflow status"
    follows: ClassVar[str] = "unschedule"

    experiment: Annotated[str, Field(min_length=1, description="Experiment whose runs are shown.")] = "pneumonia"
    time_zone: Annotated[str, Field(description="Time zone of the cluster's schedules.")] = "UTC"
    tolerance: Annotated[int, Field(ge=1, le=1440, description="Minutes that a scheduled run may be late.")] = 15
    runs: Annotated[int, Field(ge=1, le=100, description="Number of runs that are shown.")] = 5

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, zone: str) -> str:
        find_time_zone(zone)
        return zone

    def run(self) -> None:
        """Show schedules and runs, then report the problems."""
        from cxr.kubeflow.schedule_status import check_schedule

        cluster = self.cluster()
        now = datetime.now(UTC)
        statuses = [
            check_schedule(
                recurring_run,
                cluster.list_runs(RUNS_CHECKED, recurring_run_id=recurring_run.recurring_run_id),
                self.time_zone,
                timedelta(minutes=self.tolerance),
                now,
            )
            for recurring_run in self.recurring_runs(cluster)
        ]
        for status in statuses:
            self._show_schedule(status)
        if not statuses:
            self.show(f"{self.schedule}: not scheduled; schedule it with `cxr kubeflow schedule`")
        experiment_id = cluster.find_experiment(self.experiment)
        runs = cluster.list_runs(self.runs, experiment_id=experiment_id) if experiment_id else []
        self._show_runs(cluster, runs)
        problems = [f"{status.name}: {status.problem}" for status in statuses if status.problem]
        names = [status.name for status in statuses]
        problems += [
            f"expected one schedule={name}, received {names.count(name)}; `cxr kubeflow schedule` leaves one"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
        if problems:
            raise ClusterError("\n".join(problems))

    def _show_schedule(self, status: ScheduleStatus) -> None:
        from cxr.kubeflow.schedule_status import format_utc

        last_run = status.last_run
        last = f"{format_utc(last_run.created_at)}, {_state(last_run)}" if last_run else "never"
        next_date = f"{status.next_date:%a %Y-%m-%d %H:%M:%S} {self.time_zone}" if status.next_date else "-"
        state = "enabled" if status.enabled else "paused"
        self.show(f"{status.name}: {status.description}, {state}", f"  last run: {last}", f"  next run: {next_date}")

    def _show_runs(self, cluster: KubeflowCluster, runs: list[Any]) -> None:
        from cxr.kubeflow.run_progress import locate_failure
        from cxr.kubeflow.schedule_status import format_utc

        self.show(f"last runs of the experiment {self.experiment}:" if runs else "no runs yet")
        for run in runs:
            self.show(f"  {format_utc(run.created_at)}  {_state(run):<10}  {run.run_id}  {run.display_name}")
            if run.state == "FAILED":
                record = cluster.get_run(run.run_id)
                lines = locate_failure(cluster, record, cluster.task_definitions(record))
                self.show(*(f"      {line}" for line in lines[:2]))


def _state(run: Any) -> str:
    return (run.state or "unknown").lower()

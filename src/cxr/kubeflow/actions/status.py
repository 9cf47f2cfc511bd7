"""Status: what is scheduled, when it fires next, and what became of the last runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from cxr.errors import ClusterError
from cxr.kubeflow.actions.base import Named
from cxr.kubeflow.cron import time_zone

if TYPE_CHECKING:
    from cxr.kubeflow.schedule_status import Firing


class Status(Named):
    """Show the schedule and the last runs; exit status 1 if the schedule did not fire when it should have."""

    name: ClassVar[str] = "kubeflow status"

    experiment: Annotated[str, Field(min_length=1, description="Experiment whose runs are shown.")] = "pneumonia"
    time_zone: Annotated[str, Field(description="Time zone of the cluster's schedules.")] = "UTC"
    tolerance: Annotated[int, Field(ge=1, le=1440, description="Minutes that a scheduled run may be late.")] = 15
    runs: Annotated[int, Field(ge=1, le=100, description="How many of the last runs are shown.")] = 5

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, zone: str) -> str:
        time_zone(zone)
        return zone

    def run(self) -> None:
        """Print schedules and runs, and warn."""
        from cxr.kubeflow.schedule_status import firing

        cluster = self.cluster()
        now = datetime.now(UTC)
        found = [
            firing(
                one,
                cluster.runs(20, recurring_run_id=one.recurring_run_id),
                self.time_zone,
                timedelta(minutes=self.tolerance),
                now,
            )
            for one in cluster.recurring(self.schedule)
        ]
        for one in found:
            self._tell(one)
        if not found:
            self.show(f"{self.schedule}: not scheduled; `cxr kubeflow schedule` does it")
        experiment_id = cluster.experiment_id(self.experiment)
        self._tell_runs(cluster.runs(self.runs, experiment_id=experiment_id) if experiment_id else [])
        problems = [f"{self.schedule}: {one.problem}" for one in found if one.problem]
        if len(found) > 1:
            problems.append(
                f"expected one schedule={self.schedule}, received {len(found)}; `cxr kubeflow schedule` leaves one"
            )
        if problems:
            raise ClusterError("\n".join(problems))

    def _tell(self, one: Firing) -> None:
        """Print a schedule."""
        from cxr.kubeflow.schedule_status import utc

        last = f"{utc(one.last.created_at)}, {_state(one.last)}" if one.last else "never"
        coming = f"{one.next:%a %Y-%m-%d %H:%M:%S} {self.time_zone}" if one.next else "-"
        state = "enabled" if one.enabled else "paused"
        self.show(f"{self.schedule}: {one.words}, {state}", f"  last run: {last}", f"  next run: {coming}")

    def _tell_runs(self, runs: list[Any]) -> None:
        """Print the last runs."""
        from cxr.kubeflow.schedule_status import utc

        self.show(f"last runs of the experiment {self.experiment}:" if runs else "no runs yet")
        for run in runs:
            self.show(f"  {utc(run.created_at)}  {_state(run):<10}  {run.run_id}  {run.display_name}")


def _state(run: Any) -> str:
    return (run.state or "unknown").lower()

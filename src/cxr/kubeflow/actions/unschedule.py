"""Unschedule: delete the schedules with a name."""

from __future__ import annotations

from typing import ClassVar

from cxr.kubeflow.actions.base import ScheduleAction


class DeleteSchedule(ScheduleAction):
    """Delete the schedules with a name; a run that has started goes on."""

    name: ClassVar[str] = "kubeflow unschedule"
    follows: ClassVar[str] = "schedule"

    def run(self) -> None:
        """Delete the schedules and show their number."""
        cluster = self.cluster()
        recurring_runs = self.recurring_runs(cluster)
        for recurring_run in recurring_runs:
            cluster.delete_recurring_run(recurring_run.recurring_run_id)
        self.show(f"{self.schedule}: {len(recurring_runs)} deleted")

"""Unschedule: delete the schedules of a name."""

from __future__ import annotations

from typing import ClassVar

from cxr.kubeflow.actions.base import Named


class Unschedule(Named):
    """Delete the schedules of a name; a run that is going on goes on."""

    name: ClassVar[str] = "kubeflow unschedule"

    def run(self) -> None:
        """Delete them and say how many there were."""
        cluster = self.cluster()
        found = cluster.recurring(self.schedule)
        for one in found:
            cluster.unschedule(one.recurring_run_id)
        self.show(f"{self.schedule}: {len(found)} deleted")

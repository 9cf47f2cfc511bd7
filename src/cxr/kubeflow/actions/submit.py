"""Submit: start a run of a pipeline on the cluster, and follow it on request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.errors import ClusterError
from cxr.kubeflow.actions.base import SubmittingAction


class SubmitRun(SubmittingAction):
    """Start a run of a pipeline on the cluster now; the same content is uploaded only once."""

    name: ClassVar[str] = "kubeflow submit"
    follows: ClassVar[str] = "run"

    wait: Annotated[bool, Field(description="Follow the run to its end; exit status 1 if it does not succeed.")] = False
    seconds: Annotated[
        float, Field(gt=0, le=3600, description="Seconds between two requests for the state of the run.")
    ] = 10.0

    def run(self) -> None:
        """Upload the pipeline, start the run, and follow it on request."""
        from cxr.kubeflow.run_progress import follow_run

        packages = self.read_packages()
        cluster = self.cluster()
        run_ids = []
        for number, package in enumerate(packages, start=1):
            part = f" ({number} of {len(packages)})" if len(packages) > 1 else ""
            spec = self.run_spec(cluster, package, f"{package.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}{part}")
            run_ids.append(cluster.start_run(spec))
            self.show(f"run {run_ids[-1]}", cluster.page_url("runs", run_ids[-1]))
        if self.wait:
            problems = []
            for run_id in run_ids:
                try:
                    follow_run(cluster, run_id, self.seconds, self.show)
                except ClusterError as error:
                    problems.append(str(error))
            if problems:
                raise ClusterError("\n".join(problems))

"""Submit: start a run of a pipeline on the cluster, and follow it if wanted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.kubeflow.actions.base import Started


class Submit(Started):
    """Start a run of a pipeline on the cluster now; its content is uploaded once."""

    name: ClassVar[str] = "kubeflow submit"

    wait: Annotated[bool, Field(description="Follow the run to its end; exit status 1 if it does not succeed.")] = False
    seconds: Annotated[
        float, Field(gt=0, le=3600, description="Seconds between two looks at a run that is followed.")
    ] = 10.0

    def run(self) -> None:
        """Upload, start, and follow."""
        from cxr.kubeflow.run_progress import follow
        from cxr.kubeflow.run_spec import Work

        package = self.read()
        cluster = self.cluster()
        version = self.upload(cluster, package)
        work = Work(
            name=f"{package.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
            experiment_id=cluster.experiment(self.experiment),
            version=version,
            arguments=self.arguments,
            service_account=self.service_account,
            pipeline_root=self.pipeline_root,
        )
        run_id = cluster.start(work)
        self.show(f"run {run_id}", cluster.page("runs", run_id))
        if self.wait:
            follow(cluster, run_id, self.seconds, self.show)

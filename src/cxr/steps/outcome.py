"""Step: a run of the pipeline on a cluster has ended, well or not."""

from __future__ import annotations

import logging
import os
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.tracking_fields import Tracked

log = logging.getLogger(__name__)


class Outcome(Tracked):
    """Tell how a run of the pipeline on a cluster went: in the log, and in MLflow."""

    name: ClassVar[str] = "outcome"
    sections: ClassVar[tuple[str, ...]] = ("tracking",)

    api: Annotated[
        str | None,
        Field(description="Address of Kubeflow's API, which knows the tasks that failed; null asks nobody."),
    ] = None
    run_id: Annotated[
        str | None, Field(min_length=1, description="Kubeflow's id of the run; null: the variable CXR_PIPELINE_RUN.")
    ] = None

    def run(self) -> None:
        """Ask how the run went, say it, note it in MLflow."""
        from cxr.lineage.pipeline_run import PipelineRun
        from cxr.lineage.provenance import PIPELINE_RUN
        from cxr.tracking.pipeline_status import note_outcome

        run_id = self.run_id or os.environ.get(PIPELINE_RUN) or "without a name"
        unknown = "nobody was asked how: api is null"
        run = PipelineRun.read(self.api, run_id) if self.api else PipelineRun(run_id, "", {}, unknown)
        log.info(run.sentence())
        if self.store:
            note_outcome(
                self.store,
                self.experiment,
                run_id,
                name=run.name,
                failed=None if run.problem else run.failed,
                text=run.sentence(),
            )

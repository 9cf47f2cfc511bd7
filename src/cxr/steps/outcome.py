"""Outcome: log how a pipeline run on a cluster ended."""

from __future__ import annotations

import logging
import os
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import TRAIN_IMAGE
from cxr.steps.tracking_fields import TrackingStep

log = logging.getLogger(__name__)


class Outcome(TrackingStep):
    """Report how a pipeline run on a cluster ended: in the log, and in MLflow."""

    name: ClassVar[str] = "outcome"
    follows: ClassVar[str] = "register"
    sections: ClassVar[tuple[str, ...]] = ("tracking",)
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    retryable: ClassVar[bool] = False
    cacheable: ClassVar[bool] = False  # each run has its own outcome

    api: Annotated[
        str | None,
        Field(description="Address of Kubeflow's API, which knows the failed tasks; null leaves the outcome unknown."),
    ] = None
    run_id: Annotated[
        str | None, Field(min_length=1, description="Kubeflow's id of the run; null: the variable CXR_PIPELINE_RUN.")
    ] = None

    def run(self) -> None:
        """Find out how the run ended, and log it."""
        from cxr.lineage.pipeline_run import PipelineRun
        from cxr.lineage.provenance import PIPELINE_RUN_VARIABLE
        from cxr.tracking.pipeline_status import log_pipeline_status

        run_id = self.run_id or os.environ.get(PIPELINE_RUN_VARIABLE) or "without a name"
        unknown = "nobody was asked how: api is null"
        run = PipelineRun.read(self.api, run_id) if self.api else PipelineRun(run_id, "", {}, unknown)
        log.info(run.sentence())
        if self.store is not None:
            log_pipeline_status(
                self.store,
                self.experiment,
                run_id,
                name=run.name,
                failed=None if run.problem else run.failed,
                text=run.sentence(),
            )

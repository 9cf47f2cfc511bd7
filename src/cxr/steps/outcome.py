"""Outcome: log how a pipeline run on a cluster ended."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from cxr.errors import RegistryError
from cxr.steps.base import TRAIN_IMAGE, FinalStatus
from cxr.steps.tracking_fields import TrackingStep

log = logging.getLogger(__name__)


class Outcome(TrackingStep):
    """Report how a pipeline run on a cluster ended: in the log, and in MLflow."""

    name: ClassVar[str] = "outcome"
    follows: ClassVar[str] = "register_regions"
    sections: ClassVar[tuple[str, ...]] = ("tracking",)
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    retryable: ClassVar[bool] = False
    cacheable: ClassVar[bool] = False  # each run has its own outcome

    api: Annotated[
        str | None,
        Field(description="Address of Kubeflow's API, which knows the failed tasks; null leaves them unknown."),
    ] = None
    run_id: Annotated[
        str | None, Field(min_length=1, description="Kubeflow's id of the run; null: the variable CXR_PIPELINE_RUN.")
    ] = None
    final_status: Annotated[
        str | None,
        FinalStatus(),
        Field(description="How the tasks before ended, in JSON, as Kubeflow passes it; null if it does not."),
    ] = None

    @field_validator("final_status", mode="before")
    @classmethod
    def _write_json(cls, status: object) -> object:
        # The command line reads an argument that begins with a brace.
        return json.dumps(status, default=str) if isinstance(status, Mapping) else status

    def run(self) -> None:
        """Find out how the run ended, and log it with the versions that wait for approval."""
        from cxr.lineage.pipeline_run import PipelineRun
        from cxr.lineage.provenance import PIPELINE_RUN_VARIABLE
        from cxr.promotion.log import waiting_sentence
        from cxr.tracking.approvals import waiting_versions
        from cxr.tracking.pipeline_status import log_pipeline_status

        run_id = self.run_id or os.environ.get(PIPELINE_RUN_VARIABLE) or "without a name"
        run = PipelineRun.read(run_id, api=self.api, final_status=self.final_status)
        log.info(run.sentence())
        if self.store is not None:
            waiting: list[str] = []
            try:
                waiting += [f"{name}: {waiting_sentence(entry)}" for name, entry in waiting_versions(self.store)]
            except RegistryError as error:  # the report of a failure must not fail itself
                log.warning("it is not known what waits for approval: %s", error)
            for sentence in waiting:
                log.info(sentence)
            log_pipeline_status(self.store, self.experiment, run, waiting)

"""Pipeline runs on a cluster in the tracking store, so that failures appear where people look."""

from __future__ import annotations

from collections.abc import Sequence

from cxr.lineage.pipeline_run import PipelineRun
from cxr.tracking.store import Store

RUN_TAG = "pipeline_run"
"""Tag with Kubeflow's id of the run; the versions that it registers have it too."""
RUN_STATUSES = {"succeeded": "FINISHED", "failed": "FAILED", "unknown": "KILLED"}
"""Outcome of a pipeline run to MLflow's status. MLflow has none for "unknown": FINISHED and FAILED would both claim
something that nobody knows, and KILLED stands out in its list."""
NO_NAMES = {"succeeded": "none", "failed": "Kubeflow does not say where", "unknown": "unknown"}
"""Outcome to the tag ``failed`` of a run without names of failed tasks."""


def log_pipeline_status(store: Store, experiment: str, run: PipelineRun, waiting: Sequence[str]) -> str:
    """Log how a pipeline run ended; the same run is logged once.

    Args:
        store: the tracking store.
        experiment: name of the experiment of the trainings; pipeline runs have one beside it.
        run: the outcome of the run.
        waiting: sentences about versions that wait for approval.

    Returns:
        MLflow's id of its run.

    Raises:
        RegistryError: if the store does not answer.
    """
    client = store.connect()
    with store.clear_errors(f"note how the run {run.run_id} went"):
        experiment_id = store.experiment_id(f"{experiment}: pipeline runs")
        matches = client.search_runs([experiment_id], f"tags.{RUN_TAG} = '{run.run_id}'")
        failed_names = ", ".join(run.failed) or NO_NAMES[run.outcome]
        note = "\n\n".join([run.sentence(), *waiting])
        tags = {RUN_TAG: run.run_id, "failed": failed_names, "mlflow.note.content": note}
        entry = matches[0] if matches else client.create_run(experiment_id, tags=tags, run_name=run.name or run.run_id)
        for key, value in tags.items():
            client.set_tag(entry.info.run_id, key, value)
        client.set_terminated(entry.info.run_id, RUN_STATUSES[run.outcome])
    return str(entry.info.run_id)

"""Pipeline runs on a cluster in the tracking store, so that failures appear where people look."""

from __future__ import annotations

from collections.abc import Mapping

from cxr.tracking.store import Store

RUN_TAG = "pipeline_run"
"""Tag with Kubeflow's id of the run; the versions that it registers have it too."""


def log_pipeline_status(
    store: Store, experiment: str, run_id: str, *, name: str, failed: Mapping[str, str] | None, text: str
) -> str:
    """Log how a pipeline run ended; the same run is logged once.

    Args:
        store: the tracking store.
        experiment: name of the experiment of the trainings; pipeline runs have one beside it.
        run_id: Kubeflow's id of the run.
        name: its name on Kubeflow's page, or an empty text.
        failed: task to reason, for each task that failed; None if that is unknown.
        text: how the run ended, in a sentence.

    Returns:
        MLflow's id of its run.

    Raises:
        RegistryError: if the store does not answer.
    """
    client = store.connect()
    with store.clear_errors(f"note how the run {run_id} went"):
        experiment_id = store.experiment_id(f"{experiment}: pipeline runs")
        matches = client.search_runs([experiment_id], f"tags.{RUN_TAG} = '{run_id}'")
        failed_tasks = "unknown" if failed is None else ", ".join(failed) or "none"
        tags = {RUN_TAG: run_id, "failed": failed_tasks, "mlflow.note.content": text}
        run = matches[0] if matches else client.create_run(experiment_id, tags=tags, run_name=name or run_id)
        for key, value in tags.items():
            client.set_tag(run.info.run_id, key, value)
        client.set_terminated(run.info.run_id, "FAILED" if failed else "FINISHED")
    return str(run.info.run_id)

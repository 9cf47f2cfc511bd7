"""Runs of the pipeline on a cluster in the tracking store: what failed is seen where people look."""

from __future__ import annotations

from collections.abc import Mapping

from cxr.tracking.connection import client, experiment_id
from cxr.tracking.health import plainly

RUN_TAG = "pipeline_run"
"""Tag with Kubeflow's id of the run; the versions that it registers have it too."""


def note_outcome(
    uri: str, experiment: str, run_id: str, *, name: str, failed: Mapping[str, str] | None, text: str
) -> str:
    """Note how a run of the pipeline went; the same run is noted once.

    Args:
        uri: address of the store.
        experiment: name of the experiment of the trainings; runs of the pipeline have one beside it.
        run_id: Kubeflow's id of the run.
        name: its name on Kubeflow's page, or an empty text.
        failed: task to reason, for each task that failed; None if nobody knows.
        text: how the run went, in a sentence.

    Returns:
        MLflow's id of the entry.

    Raises:
        RegistryError: if the store doesn't answer.
    """
    told = "unknown" if failed is None else ", ".join(failed) or "none"
    connected = client(uri)
    with plainly(uri, f"note how the run {run_id} went"):
        where = experiment_id(connected, uri, f"{experiment}: pipeline runs")
        noted = connected.search_runs([where], f"tags.{RUN_TAG} = '{run_id}'")
        tags = {RUN_TAG: run_id, "failed": told, "mlflow.note.content": text}
        entry = noted[0] if noted else connected.create_run(where, tags=tags, run_name=name or run_id)
        for key, value in tags.items():
            connected.set_tag(entry.info.run_id, key, value)
        connected.set_terminated(entry.info.run_id, "FAILED" if failed else "FINISHED")
    return str(entry.info.run_id)

"""Reports of a rejected data set in the tracking store: they outlive the container that wrote them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from cxr.data.checks.acceptance import CHECKS_FILE, DATA_DOCS_FOLDER, QUARANTINE_FILE
from cxr.files import EXPLORATION_FILE, SUMMARY_FILE
from cxr.lineage.provenance import PIPELINE_RUN_VARIABLE
from cxr.tracking.health import hide_passwords
from cxr.tracking.pipeline_status import RUN_TAG
from cxr.tracking.run_data import MAX_LENGTH
from cxr.tracking.store import Store
from cxr.tracking.version_record import run_pages

REPORT_TAG = "report_digest"
"""Tag with the sha256 of the checks: the same data, rejected for the same reasons, are logged once."""
REPORTS = (EXPLORATION_FILE, DATA_DOCS_FOLDER, CHECKS_FILE, QUARANTINE_FILE, SUMMARY_FILE)
"""Files and folders that are logged, without the manifest: a rejected data set must not look like an accepted one."""


def log_rejected_data(store: Store, experiment: str, folder: Path, checks: str) -> str:
    """Log the reports of a rejected data set; the same reports are logged once.

    Args:
        store: the tracking store.
        experiment: name of the experiment of the trainings; rejected data sets have one beside it.
        folder: folder of the reports, with ``checks.json`` and others.
        checks: text of the failed checks.

    Returns:
        Where the reports are, with the address of MLflow's page.

    Raises:
        RegistryError: if the store does not answer.
    """
    content = (folder / CHECKS_FILE).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    data_digest = str(json.loads(content)["digest"])
    client = store.connect()
    with store.clear_errors("take the reports of the rejected data"):
        name = f"{experiment}: rejected data"
        experiment_id = store.experiment_id(name)
        matches = client.search_runs([experiment_id], f"tags.{REPORT_TAG} = '{digest}'")
        complete = next((run for run in matches if run.info.status == "FINISHED"), None)
        run = complete or next(iter(matches), None)
        if run is None:
            tags = {REPORT_TAG: digest, "data_digest": data_digest}
            run = client.create_run(experiment_id, tags=tags, run_name=data_digest[:12])
        if complete is None:
            for report in REPORTS:
                path = folder / report
                if path.is_dir():
                    client.log_artifacts(run.info.run_id, str(path), report)
                elif path.is_file():
                    client.log_artifact(run.info.run_id, str(path))
            client.set_tag(run.info.run_id, "mlflow.note.content", checks[:MAX_LENGTH])
            client.set_terminated(run.info.run_id, "FINISHED")
        if pipeline_run := os.environ.get(PIPELINE_RUN_VARIABLE):
            client.set_tag(run.info.run_id, RUN_TAG, pipeline_run)
    page = f"{hide_passwords(store.uri).rstrip('/')}/{run_pages(experiment_id, run.info.run_id, '')['run']}"
    return f"in MLflow, experiment {name!r}, run {data_digest[:12]}: {page}"

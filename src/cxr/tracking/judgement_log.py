"""Judgements on other data: files and figures with the run of the judged version, and in its model card.

The files are in the folder ``outside/VERSION/DATA`` of the run, where VERSION tells versions of one run apart. Metrics
and tags of the version are named ``outside/DATA/MEASURE``.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import RegistryError
from cxr.evaluation.slices import slice_title
from cxr.files import SUMMARY_FILE, read_json, scratch_folder
from cxr.lineage.version_lineage import Lineage
from cxr.results.judgements import ALL, ANSWERED, JUDGEMENTS_ENTRY, WORST_SLICE
from cxr.tracking.artifact_download import download_files
from cxr.tracking.dataset_inputs import OUTSIDE, InputData, log_inputs
from cxr.tracking.run_data import add_metrics, epoch_metrics
from cxr.tracking.store import Store
from cxr.tracking.version_record import update_card
from cxr.tracking.versions import FINGERPRINT

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def log_judgement(store: Store, lineage: Lineage, folder: Path) -> None:
    """Log a judgement with its version; one on the same data set is replaced.

    Args:
        store: the tracking store.
        lineage: lineage of the version.
        folder: what :func:`cxr.external_validation.report.write_judgement_folder` wrote.

    Raises:
        RegistryError: if the store does not answer or fails meanwhile, or the run of the version is gone.
    """
    if lineage.run_id is None:
        raise RegistryError(
            f"expected the run of {lineage.title}, received none: it was deleted; restore it in MLflow's page, and run "
            "the same command again"
        )
    client = store.connect()
    summary = read_json(folder / SUMMARY_FILE)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", str(summary["data"])).strip("-.") or "data"
    parent = _folder(lineage.tags, lineage.version)
    beginning = f"{JUDGEMENTS_ENTRY}/{name}/"
    figures = {f"{beginning}{measure}": value for measure, value in judgement_figures(summary).items()}
    with store.clear_errors(f"take the judgement of {lineage.title} on {summary['data']}"):
        client.log_artifacts(lineage.run_id, str(folder), f"{parent}/{name}")
        add_metrics(store, lineage.run_id, epoch_metrics(figures, 0, time.time()))
        log_inputs(store, lineage.run_id, [_input(summary)])
        tags = {key: str(value) for key, value in figures.items()}
        if (worst := summary.get(WORST_SLICE)) is not None:
            tags[f"{beginning}{WORST_SLICE}"] = slice_title(worst)
        for key, text in tags.items():
            client.set_model_version_tag(lineage.name, lineage.version, key, text)
        for key in lineage.tags:
            if key.startswith(beginning) and key not in tags:  # of an earlier judgement, and unknown now
                client.delete_model_version_tag(lineage.name, lineage.version, key)
        version = client.get_model_version(lineage.name, lineage.version)
        update_card(store, version, read_judgements_of(store, version))


def _input(summary: Mapping[str, Any]) -> InputData:
    counts = {"images": summary["images"], "patients": summary["patients"]}
    counts |= {label.lower(): count for label, count in summary["classes"].items()}
    return InputData(summary["data"], summary["digest"], OUTSIDE, summary["source"], counts)


def judgement_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Collect the figures of a judgement for a tracking server.

    Args:
        summary: content of ``summary.json``.

    Returns:
        Name to finite value: measures of the images that get an answer, the same with the refused ones as
        ``with_refused_NAME``, ``images``, ``share_refused`` and, with slices, ``worst_slice_sensitivity``.
    """
    values: dict[str, float | None] = {"images": summary["images"], "share_refused": summary["refusals"]["share"]}
    for entry, prefix in ((ANSWERED, ""), (ALL, f"{ALL}_")):
        values |= {f"{prefix}{name}": measure["value"] for name, measure in (summary[entry] or {}).items()}
    if (worst := summary.get(WORST_SLICE)) is not None:
        values[f"{WORST_SLICE}_sensitivity"] = worst["sensitivity"]["value"]
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def read_judgements_of(store: Store, version: ModelVersion) -> list[dict[str, Any]]:
    """Read the judgements of a version.

    Args:
        store: the tracking store.
        version: a version of the registered model, whose run is there.

    Returns:
        Content of the ``summary.json`` of each, by name of the data set.
    """
    client, run_id = store.client, version.run_id
    location = client.get_run(run_id).info.artifact_uri
    folders = client.list_artifacts(run_id, _folder(version.tags, str(version.version)))
    names = sorted(entry.path for entry in folders if entry.is_dir)
    with scratch_folder() as scratch:
        return [read_json(download_files(store, location, f"{name}/{SUMMARY_FILE}", scratch)) for name in names]


def _folder(tags: Mapping[str, str], version: str) -> str:
    """Folder among the artifacts of a version's run with one folder per judgement."""
    return f"{JUDGEMENTS_ENTRY}/{tags.get(FINGERPRINT, version)[:12]}"

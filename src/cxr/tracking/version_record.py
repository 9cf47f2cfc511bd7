"""The record of a version's origin: files with its run, tags, and a description for MLflow's page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import DataError
from cxr.files import METRICS_FILE, MODEL_CARD_FILE, TRAINING_FILE, read_json, scratch_folder
from cxr.lineage import provenance
from cxr.lineage.provenance import DATA_POINTER, LOCK_FILES, PARAMETERS_FILE, RECORDED_FILES
from cxr.models.metadata import ModelMetadata
from cxr.promotion.model_card.writer import write_model_card
from cxr.results.judgements import JUDGEMENTS_ENTRY
from cxr.results.model_result import read_metrics
from cxr.tracking.artifact_download import download_files
from cxr.tracking.registry_reader import read_metadata
from cxr.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

RECORDS = "registered"
"""Folder among a run's artifacts with one folder per version that was created from the run."""
DESCRIPTION_LIMIT = 5000
"""Characters that MLflow's database keeps of a version's description."""


@dataclass(frozen=True)
class VersionRecord:
    """Tags and description of a version.

    Attributes:
        tags: tag name to value.
        description: as much of the model card as there is room for, with links that work inside MLflow's page.
    """

    tags: dict[str, str]
    description: str


def keep_record(
    store: Store, run_id: str, trained: Path, evaluation: Path, fingerprint: str, root: Path = Path()
) -> VersionRecord:
    """Store with a run what a version was created from; the same version again replaces only its own record.

    Args:
        store: the tracking store.
        run_id: the run that trained the model.
        trained: the model's folder.
        evaluation: folder of its evaluation, with the calibrated metadata.
        fingerprint: digest that identifies the version.
        root: root of the repository, with the files :data:`cxr.lineage.provenance.RECORDED_FILES`; missing ones are not
            recorded.

    Returns:
        Tags and description for the version.
    """
    metadata, metrics = ModelMetadata.read(evaluation), _read_metrics(evaluation)
    path = f"{RECORDS}/{fingerprint[:12]}"
    with scratch_folder() as scratch:
        folder = scratch
        for name in RECORDED_FILES:
            if (root / name).is_file():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(root / name, folder / name)
        if (trained / TRAINING_FILE).is_file():  # an ensemble has none
            shutil.copyfile(trained / TRAINING_FILE, folder / TRAINING_FILE)
        (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        (folder / MODEL_CARD_FILE).write_text(write_model_card(metadata, metrics), encoding="utf-8")
        store.client.log_artifacts(run_id, str(folder), path)
    lock, stage = _find_stage(root, trained)
    values: dict[str, str | None] = {
        "data_source": metadata.dataset.get("source"),
        "data_licence": metadata.dataset.get("licence"),
        "dvc_lock": _with_algorithm(provenance.file_digest(root / lock)),
        "dvc_stage": stage and (stage if lock == LOCK_FILES[0] else f"{Path(lock).parent}/dvc.yaml:{stage}"),
        "params": _with_algorithm(provenance.file_digest(root / PARAMETERS_FILE)),
        "registered_from": provenance.git_commit(root),
        "environment": metadata.environment,
        "pipeline_run": metadata.pipeline_run,
        "image_digest": metadata.image_digest,
        "evaluation": f"runs:/{run_id}/evaluation",
        "report": f"runs:/{run_id}/evaluation/plots" if (evaluation / "plots").is_dir() else None,
        "record": f"runs:/{run_id}/{path}",
        "model_card": f"runs:/{run_id}/{path}/{MODEL_CARD_FILE}",
    }
    tags = {key: value for key, value in values.items() if value is not None}
    experiment_id = store.client.get_run(run_id).info.experiment_id
    links = run_pages(str(experiment_id), run_id, path)
    origin = "\n".join(f"- {line}" for line in _origin_lines(metadata, tags, links))
    return VersionRecord(tags, write_model_card(metadata, metrics, origin=origin, limit=DESCRIPTION_LIMIT))


def update_card(
    store: Store,
    version: ModelVersion,
    judgements: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write the description of a version, and the model card of its record, anew with its judgements on other data.

    A version of an earlier program, without a record, keeps its description.

    Args:
        store: the tracking store.
        version: a version of the registered model.
        judgements: content of the ``summary.json`` of each.
        metrics: figures to record in place of the recorded ones; None keeps those.

    Raises:
        RegistryError: if the files of the version cannot be read.
    """
    recorded = read_recorded_metrics(store, version) if metrics is None else metrics
    if recorded is None:
        return
    run_id, path = _split_record(version.tags["record"])
    experiment_id, metadata = store.client.get_run(run_id).info.experiment_id, read_metadata(store, version)
    with_judgements = {**recorded, **({JUDGEMENTS_ENTRY: list(judgements)} if judgements else {})}
    with scratch_folder() as folder:
        (folder / MODEL_CARD_FILE).write_text(write_model_card(metadata, with_judgements), encoding="utf-8")
        if metrics is not None:
            (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        store.client.log_artifacts(run_id, str(folder), path)
    links = run_pages(str(experiment_id), run_id, path)
    origin = "\n".join(f"- {line}" for line in _origin_lines(metadata, version.tags, links))
    description = write_model_card(metadata, with_judgements, origin=origin, limit=DESCRIPTION_LIMIT)
    store.client.update_model_version(version.name, version.version, description)


def read_recorded_metrics(store: Store, version: ModelVersion) -> dict[str, Any] | None:
    """Read the figures in the record of a version.

    Args:
        store: the tracking store.
        version: a version of the registered model.

    Returns:
        Content of ``metrics.json``, with the stress test; None for a version of an earlier program, without a record.
    """
    if "record" not in version.tags:
        return None
    with scratch_folder() as scratch:
        return read_json(_download_recorded(store, version, METRICS_FILE, scratch))


def read_recorded_card(store: Store, version: ModelVersion) -> str | None:
    """Read the model card in the record of a version, which has what was measured after its registration, too.

    Args:
        store: the tracking store.
        version: a version of the registered model.

    Returns:
        Markdown; None for a version of an earlier program, without a record.
    """
    if "record" not in version.tags:
        return None
    with scratch_folder() as scratch:
        return _download_recorded(store, version, MODEL_CARD_FILE, scratch).read_text(encoding="utf-8")


def _download_recorded(store: Store, version: ModelVersion, name: str, folder: Path) -> Path:
    run_id, path = _split_record(version.tags["record"])
    return download_files(store, store.client.get_run(run_id).info.artifact_uri, f"{path}/{name}", folder)


def _split_record(record: str) -> tuple[str, str]:
    """The run and the folder among its artifacts that the tag ``record`` names."""
    run_id, _, path = record.removeprefix("runs:/").partition("/")
    return run_id, path


def model_card(metadata: ModelMetadata, evaluation: Path) -> str:
    """Write the model card of an evaluated model.

    Args:
        metadata: the calibrated metadata.
        evaluation: folder of the evaluation.

    Returns:
        Markdown.
    """
    return write_model_card(metadata, _read_metrics(evaluation))


def run_pages(experiment_id: str, run_id: str, record: str) -> dict[str, str]:
    """Addresses of a run's pages, relative to MLflow's page.

    Args:
        experiment_id: MLflow's id of the experiment.
        run_id: the run.
        record: folder of the version's record among the run's artifacts.

    Returns:
        ``run``, ``curves``, ``evaluation``, ``report``, ``record`` and ``model_card`` to the part of the address from
        ``#`` on.
    """
    run = f"#/experiments/{experiment_id}/runs/{run_id}"
    files = f"{run}/artifacts"
    return {
        "run": run,
        "curves": f"{run}/model-metrics",
        "evaluation": f"{files}/evaluation/{METRICS_FILE}",
        "report": f"{files}/evaluation/plots",
        "record": f"{files}/{record}",
        "model_card": f"{files}/{record}/{MODEL_CARD_FILE}",
    }


def _origin_lines(metadata: ModelMetadata, tags: Mapping[str, str], links: Mapping[str, str]) -> list[str]:
    """MemberVersion of the model, in lines for the version's page."""
    lines = [
        f"[Training run]({links['run']}) with its [curves]({links['curves']})",
        f"[Evaluation]({links['evaluation']}) and its [plots]({links['report']})",
        f"[`{PARAMETERS_FILE}`, `{LOCK_FILES[0]}`, `{DATA_POINTER}` and the whole model card]({links['record']})",
        f"Commit `{metadata.git_commit or 'unknown'}`",
        f"Data `{metadata.data_md5 or 'unknown'}` (`{DATA_POINTER}`)",
        f"Environment `{metadata.environment or 'unknown'}`",
        f"Pipeline run: {metadata.pipeline_run or 'none, by hand or by DVC'}",
    ]
    if metadata.image_digest:
        lines.append(f"Image `{metadata.image_digest}`")
    if "dvc_stage" not in tags:
        lines.append("Not described by the lock file of DVC: trained by hand, or since")
    return lines


def _find_stage(root: Path, trained: Path) -> tuple[str, str | None]:
    """The lock file that describes a model's folder, and the stage; the first lock file and None if none does."""
    for lock in LOCK_FILES:
        for folder in (trained, trained.parent):  # an ensemble's model is a part of its stage's output
            stage = provenance.dvc_stage(root / lock, folder)
            if stage is not None:
                return lock, stage
    return LOCK_FILES[0], None


def _with_algorithm(digest: str | None) -> str | None:
    return digest and f"sha256:{digest}"


def _read_metrics(evaluation: Path) -> dict[str, Any]:
    try:
        return read_metrics(evaluation)
    except DataError:
        return {}

"""What a version keeps about where it came from: files with its run, tags and a description in MLflow's page."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.files import METRICS_FILE, MODEL_CARD_FILE, TRAINING_FILE
from cxr.lineage import provenance
from cxr.lineage.record_files import FILES, LOCKS, PARAMETERS, POINTER
from cxr.models.metadata import ModelCard
from cxr.promotion.model_card.document import write_model_card

if TYPE_CHECKING:
    from mlflow import MlflowClient

RECORDS = "registered"
"""Folder among a run's artifacts with one folder per version that was made of the run."""


DESCRIPTION_LIMIT = 5000
"""Characters that MLflow's database keeps of a version's description."""


@dataclass(frozen=True)
class Record:
    """What was kept.

    Attributes:
        tags: tag name to value, for the version.
        description: the model card, as far as there is room, with links that work inside MLflow's page.
    """

    tags: dict[str, str]
    description: str


def keep_record(
    connected: MlflowClient, run_id: str, trained: Path, evaluation: Path, fingerprint: str, root: Path = Path()
) -> Record:
    """Store with a run what a version of it was made from; the same version again replaces its own record only.

    Args:
        connected: client of the store.
        run_id: the run that trained the model.
        trained: the model's folder.
        evaluation: folder of its evaluation, with the calibrated card.
        fingerprint: what tells this version from others.
        root: root of the repository, with the files of :data:`FILES`; missing ones are not recorded.

    Returns:
        Tags and description for the version.
    """
    card, metrics = ModelCard.read(evaluation), _metrics(evaluation)
    place = f"{RECORDS}/{fingerprint[:12]}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in FILES:
            if (root / name).is_file():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(root / name, folder / name)
        if (trained / TRAINING_FILE).is_file():  # an ensemble has none
            shutil.copyfile(trained / TRAINING_FILE, folder / TRAINING_FILE)
        (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        (folder / MODEL_CARD_FILE).write_text(write_model_card(card, metrics), encoding="utf-8")
        connected.log_artifacts(run_id, str(folder), place)
    lock, stage = _lock(root, trained)
    values: dict[str, str | None] = {
        "data_source": card.dataset.get("source"),
        "data_licence": card.dataset.get("licence"),
        "dvc_lock": _labelled(provenance.file_digest(root / lock)),
        "dvc_stage": stage and (stage if lock == LOCKS[0] else f"{Path(lock).parent}/dvc.yaml:{stage}"),
        "params": _labelled(provenance.file_digest(root / PARAMETERS)),
        "registered_from": provenance.git_commit(root),
        "environment": card.environment,
        "pipeline_run": card.pipeline_run,
        "image_digest": card.image_digest,
        "evaluation": f"runs:/{run_id}/evaluation",
        "report": f"runs:/{run_id}/evaluation/plots" if (evaluation / "plots").is_dir() else None,
        "record": f"runs:/{run_id}/{place}",
        "model_card": f"runs:/{run_id}/{place}/{MODEL_CARD_FILE}",
    }
    tags = {key: value for key, value in values.items() if value is not None}
    experiment = connected.get_run(run_id).info.experiment_id
    links = run_pages(str(experiment), run_id, place)
    origin = "\n".join(f"- {line}" for line in _origin(card, tags, links))
    return Record(tags, write_model_card(card, metrics, origin=origin, limit=DESCRIPTION_LIMIT))


def model_card(card: ModelCard, evaluation: Path) -> str:
    """Write the model card of an evaluated model.

    Args:
        card: the calibrated card.
        evaluation: folder of the evaluation.

    Returns:
        Markdown.
    """
    return write_model_card(card, _metrics(evaluation))


def run_pages(experiment: str, run_id: str, record: str) -> dict[str, str]:
    """Addresses of a run's pages, relative to MLflow's page.

    Args:
        experiment: MLflow's id of the experiment.
        run_id: the run.
        record: folder of the version's record among the run's artifacts.

    Returns:
        ``run``, ``curves``, ``evaluation``, ``report``, ``record`` and ``model_card`` to the part of the address from
        ``#`` on.
    """
    run = f"#/experiments/{experiment}/runs/{run_id}"
    files = f"{run}/artifacts"
    return {
        "run": run,
        "curves": f"{run}/model-metrics",
        "evaluation": f"{files}/evaluation/{METRICS_FILE}",
        "report": f"{files}/evaluation/plots",
        "record": f"{files}/{record}",
        "model_card": f"{files}/{record}/{MODEL_CARD_FILE}",
    }


def _origin(card: ModelCard, tags: Mapping[str, str], links: Mapping[str, str]) -> list[str]:
    """Where the model comes from, in lines for the version's page."""
    lines = [
        f"[Training run]({links['run']}) with its [curves]({links['curves']})",
        f"[Evaluation]({links['evaluation']}) and its [plots]({links['report']})",
        f"[`{PARAMETERS}`, `{LOCKS[0]}`, `{POINTER}` and the whole model card]({links['record']})",
        f"Commit `{card.git_commit or 'unknown'}`",
        f"Data `{card.data_md5 or 'unknown'}` (`{POINTER}`)",
        f"Environment `{card.environment or 'unknown'}`",
        f"Pipeline run: {card.pipeline_run or 'none, by hand or by DVC'}",
    ]
    if card.image_digest:
        lines.append(f"Image `{card.image_digest}`")
    if "dvc_stage" not in tags:
        lines.append("Not described by the lock file of DVC: trained by hand, or since")
    return lines


def _lock(root: Path, trained: Path) -> tuple[str, str | None]:
    """The lock file that describes a model's folder, and the stage; the first lock file if none does."""
    for lock in LOCKS:
        for folder in (trained, trained.parent):  # an ensemble's model is a part of its stage's output
            stage = provenance.stage_of(root / lock, folder)
            if stage is not None:
                return lock, stage
    return LOCKS[0], None


def _labelled(digest: str | None) -> str | None:
    return digest and f"sha256:{digest}"


def _metrics(evaluation: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((evaluation / METRICS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}

"""Collect the results of a run from the folders that its steps have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxr.errors import DataError
from cxr.files import COMPARISON_FILE, METADATA_FILE, METRICS_FILE, TRAINING_FILE, read_json
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import check_digest
from cxr.results.judgements import JUDGED_MODEL_FIELDS, JUDGEMENTS_ENTRY, read_judgements
from cxr.results.model_result import ModelResult, read_metrics

REFERENCE_REPORT_FILE = "report.json"
"""Inside the folder of a reference: how many images of each split would get no answer."""

ENSEMBLE_EVALUATION = "evaluation"
"""Inside the folder of an ensemble: its evaluation, which looks like that of any model."""

IDENTITY_FIELDS = ("model", "dataset", "data_digest", "split_protocol", "split_digest")
"""Fields of the metadata that say which model was evaluated on which images. Every result has them."""

DESCRIPTION_FIELDS = (
    "system",
    "data_md5",
    "recipe",
    "input_shape",
    "parameters",
    "seed",
    "git_commit",
    "temperature",
    "threshold",
    "threshold_rule",
)
"""Further fields of the metadata; None if unknown."""

TRAINING_FIELDS = (
    "device",
    "epochs_run",
    "best_epoch",
    "stopped",
    "seconds",
    "images_per_second",
    "train_images",
    "trainable_parameters",
)


def collect_results(
    folders: Mapping[str, tuple[Path, Path]],
    ensemble: Path | None = None,
    reference: Path | None = None,
    judgements: Path | None = None,
) -> list[ModelResult]:
    """Collect the results of a run.

    Args:
        folders: name of a model to the folder of the trained model, which has the training parameters, and the
            folder of its evaluation.
        ensemble: folder of the ensemble of these models, with its evaluation and comparison; may be missing.
        reference: folder of the reference, whose report belongs to the models of its split; may be missing.
        judgements: folder with one folder per judgement of these models on other data; may be missing.

    Returns:
        One result per evaluation, by name of the model, the ensemble last.

    Raises:
        DataError: if a file cannot be read.
    """
    results = []
    for model, evaluation in folders.values():
        training = model / TRAINING_FILE
        check_digest(training)
        parameters = read_json(training).get("parameters", {}) if training.is_file() else {}
        metadata = asdict(ModelMetadata.read(evaluation))
        results.append(_make_result(metadata, read_metrics(evaluation), parameters))
    if ensemble is not None and (ensemble / ENSEMBLE_EVALUATION / METRICS_FILE).is_file():
        results.append(_make_ensemble_result(ensemble))
    if reference is not None and (reference / REFERENCE_REPORT_FILE).is_file():
        report = read_json(reference / REFERENCE_REPORT_FILE)
        results = [
            ModelResult({**result.facts, "reference": report})
            if result.facts["split_digest"] == report.get("split_digest")
            else result
            for result in results
        ]
    summaries = [] if judgements is None else read_judgements(judgements)
    return [_with_judgements(result, summaries) for result in results]


def _with_judgements(result: ModelResult, summaries: Sequence[Mapping[str, Any]]) -> ModelResult:
    """Add the judgements of a model; those of another training of it are left out, and no result is changed else."""
    own = [
        summary for summary in summaries if all(summary.get(name) == result.facts[name] for name in JUDGED_MODEL_FIELDS)
    ]
    return ModelResult({**result.facts, JUDGEMENTS_ENTRY: own}) if own else result


def _make_result(metadata: Mapping[str, Any], metrics: dict[str, Any], parameters: Mapping[str, Any]) -> ModelResult:
    training = metadata.get("training") or {}
    return ModelResult(
        {
            **{name: metadata[name] for name in IDENTITY_FIELDS},
            **{name: metadata.get(name) for name in DESCRIPTION_FIELDS},
            "training": {name: training.get(name) for name in TRAINING_FIELDS},
            "settings": dict(parameters),
            "metrics": metrics,
        }
    )


def _make_ensemble_result(folder: Path) -> ModelResult:
    evaluation, comparison = folder / ENSEMBLE_EVALUATION, folder / COMPARISON_FILE
    metadata = read_json(evaluation / METADATA_FILE)
    missing = [name for name in IDENTITY_FIELDS if name not in metadata]
    if missing:
        raise DataError(
            f"expected the metadata of an ensemble with {', '.join(IDENTITY_FIELDS)}, received "
            f"{evaluation / METADATA_FILE} without {', '.join(missing)}; make the ensemble again"
        )
    members = [{key: member.get(key) for key in ("model", "weight")} for member in metadata.get("members") or ()]
    facts = _make_result(metadata, read_metrics(evaluation), {}).facts
    comparison_facts = read_json(comparison) if comparison.is_file() else None
    return ModelResult({**facts, "members": members, "comparison": comparison_facts})

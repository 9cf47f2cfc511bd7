"""The folder of an evaluation: fixed file names, JSON without NaN, tables that ``dvc plots`` reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.evaluation.evaluate import Evaluation

METRICS_NAME = "metrics.json"
SUMMARY_NAME = "summary.json"
PREDICTIONS_NAME = "predictions.parquet"
HISTORY_NAME = "history.csv"
CURVES = "curves"


def write_evaluation(folder: Path, evaluation: Evaluation, history: pd.DataFrame | None = None) -> None:
    """Write ``metrics.json``, ``summary.json``, ``predictions.parquet`` and ``curves/*.csv``.

    Args:
        folder: where to write; must exist.
        evaluation: what to write.
        history: figures per epoch of training, written as ``curves/training.csv``; None leaves it out.
    """
    write_json(folder / METRICS_NAME, evaluation.report)
    write_json(folder / SUMMARY_NAME, evaluation.summary())
    evaluation.predictions.to_parquet(folder / PREDICTIONS_NAME, index=False)
    curves = folder / CURVES
    curves.mkdir(exist_ok=True)
    tables = dict(evaluation.curves)
    if history is not None:
        tables["training"] = history
    for name, table in tables.items():
        table.to_csv(curves / f"{name}.csv", index=False, float_format="%.8g")


def read_history(trained: Path) -> pd.DataFrame | None:
    """Read the figures per epoch of a trained model.

    Args:
        trained: the model's folder.

    Returns:
        One row per epoch, or None if there is no history.
    """
    path = trained / HISTORY_NAME
    return pd.read_csv(path) if path.is_file() else None


def write_json(path: Path, values: Any) -> None:
    """Write JSON that every program reads: unknown numbers become null.

    Args:
        path: where to write.
        values: mappings, sequences and plain values.
    """
    path.write_text(json.dumps(without_nan(values), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def without_nan(values: Any) -> Any:
    """Replace numbers that are not finite by None, at any depth.

    Args:
        values: mappings, sequences and plain values.

    Returns:
        The same with plain dicts and lists.
    """
    if isinstance(values, dict):
        return {key: without_nan(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_nan(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values

"""Files of an evaluation's folder: JSON without NaN, and tables that ``dvc plots`` reads."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxr.evaluation.evaluate import Evaluation
from cxr.files import HISTORY_FILE, METRICS_FILE, PREDICTIONS_FILE, SUMMARY_FILE, write_json

CURVES_FOLDER = "curves"


def write_evaluation(folder: Path, evaluation: Evaluation, history: pd.DataFrame | None = None) -> None:
    """Write ``metrics.json``, ``summary.json``, ``predictions.parquet`` and ``curves/*.csv``.

    Args:
        folder: where to write; must exist.
        evaluation: what to write.
        history: metrics per epoch of training, written as ``curves/training.csv``; None leaves it out.
    """
    write_json(folder / METRICS_FILE, evaluation.report)
    write_json(folder / SUMMARY_FILE, evaluation.summary())
    evaluation.predictions.to_parquet(folder / PREDICTIONS_FILE, index=False)
    curves = folder / CURVES_FOLDER
    curves.mkdir(exist_ok=True)
    tables = dict(evaluation.curves)
    if history is not None:
        tables["training"] = history
    for name, table in tables.items():
        table.to_csv(curves / f"{name}.csv", index=False, float_format="%.8g")


def read_history(trained: Path) -> pd.DataFrame | None:
    """Read the metrics per epoch of a trained model.

    Args:
        trained: the model's folder.

    Returns:
        One row per epoch, or None if there is no history.
    """
    path = trained / HISTORY_FILE
    return pd.read_csv(path) if path.is_file() else None

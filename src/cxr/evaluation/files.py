"""Files of an evaluation's folder: JSON without NaN, and tables that ``dvc plots`` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cxr.evaluation.evaluate import Evaluation
from cxr.evaluation.stress_test import stress_table
from cxr.files import (
    CHANGED_PREDICTIONS_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    STRESS_FILE,
    SUMMARY_FILE,
    write_json,
)
from cxr.tables import write_table

CURVES_FOLDER = "curves"


def write_evaluation(folder: Path, evaluation: Evaluation, history: pd.DataFrame | None = None) -> None:
    """Write ``metrics.json``, ``summary.json``, ``predictions.parquet`` and ``curves/*.csv``.

    A stress test is written as ``stress.json``, ``changed_predictions.parquet`` and ``curves/stress.csv``.

    Args:
        folder: where to write; must exist.
        evaluation: what to write.
        history: metrics per epoch of training, written as ``curves/training.csv``; None leaves it out.
    """
    write_json(folder / METRICS_FILE, evaluation.report)
    write_json(folder / SUMMARY_FILE, evaluation.summary())
    write_table(folder / PREDICTIONS_FILE, evaluation.predictions)
    tables = dict(evaluation.curves)
    if history is not None:
        tables["training"] = training_curve(history)
    if evaluation.stress is not None:
        write_json(folder / STRESS_FILE, evaluation.stress)
        tables["stress"] = stress_table(evaluation.stress)
    if evaluation.changed_predictions is not None:
        write_table(folder / CHANGED_PREDICTIONS_FILE, evaluation.changed_predictions)
    write_curves(folder, tables)


def write_curves(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the tables that ``dvc plots`` reads, below ``curves``.

    Args:
        folder: folder of the evaluation; must exist.
        tables: name of a file without its suffix to its rows; numbers are rounded to eight figures.
    """
    curves = folder / CURVES_FOLDER
    curves.mkdir(exist_ok=True)
    for name, table in tables.items():
        table.to_csv(curves / f"{name}.csv", index=False, float_format="%.8g")


def training_curve(history: pd.DataFrame) -> pd.DataFrame:
    """Take from the metrics per epoch what a curve can show.

    Args:
        history: the result of :func:`read_history`.

    Returns:
        The history without the times of day at which epochs ended.
    """
    return history.drop(columns="ended", errors="ignore")


def read_history(trained: Path) -> pd.DataFrame | None:
    """Read the metrics per epoch of a trained model.

    Args:
        trained: the model's folder.

    Returns:
        One row per epoch, or None if there is no history.
    """
    path = trained / HISTORY_FILE
    return pd.read_csv(path) if path.is_file() else None

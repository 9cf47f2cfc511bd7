"""Files of the folder of a detector's evaluation."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxr.data.split_table import TEST, VALIDATION
from cxr.evaluation.files import write_curves
from cxr.files import METRICS_FILE, PREDICTIONS_FILE, SUMMARY_FILE, write_json
from cxr.regions.evaluation import RegionEvaluation
from cxr.tables import write_table

METHODS_FILE = "methods.csv"
IMAGES_FILE = "images.parquet"


def write_region_evaluation(folder: Path, evaluation: RegionEvaluation) -> None:
    """Write ``metrics.json``, ``summary.json``, ``predictions.parquet``, ``methods.csv`` and ``curves/*.csv``.

    ``images.parquet`` has the images with what the detector achieves in each.

    Every table has a column ``data``, which tells phantoms from patients.

    Args:
        folder: where to write; must exist.
        evaluation: what to write.
    """
    write_json(folder / METRICS_FILE, evaluation.report)
    write_json(folder / SUMMARY_FILE, evaluation.summary())
    write_table(folder / PREDICTIONS_FILE, evaluation.predictions.assign(data=evaluation.data))
    write_table(folder / IMAGES_FILE, evaluation.images.assign(data=evaluation.data))
    methods = pd.concat([evaluation.table(TEST), evaluation.table(VALIDATION)], ignore_index=True)
    methods.to_csv(folder / METHODS_FILE, index=False, float_format="%.6g")
    curves = {"free_response": evaluation.free_response, "free_response_band": evaluation.free_response_band}
    write_curves(folder, {name: table.assign(data=evaluation.data) for name, table in curves.items()})

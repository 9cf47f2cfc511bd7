"""Curves of a classifier as tables: the plots draw them, and ``dvc plots`` compares them between models."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxr.evaluation.bootstrap import bootstrap_band
from cxr.evaluation.calibration import reliability_table
from cxr.evaluation.metrics import roc_rates

BAND_POINTS = 201


def roc_curve(labels: ArrayLike, probability: ArrayLike) -> pd.DataFrame:
    """Compute the receiver operating characteristic.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].

    Returns:
        Columns false_positive_rate, sensitivity, threshold (the lowest score called pneumonia; NaN at the
        origin), from calling no image to calling every image pneumonia, without corners inside straight lines.
    """
    false_positive_rate, sensitivity = roc_rates(labels, probability)
    threshold = np.concatenate([[np.nan], np.unique(np.asarray(probability, dtype=np.float64))[::-1]])
    keep = np.ones(threshold.size, dtype=bool)
    bends = np.abs(np.diff(false_positive_rate, n=2)) + np.abs(np.diff(sensitivity, n=2))
    keep[1:-1] = ~(bends < 1e-12)
    table = {"false_positive_rate": false_positive_rate, "sensitivity": sensitivity, "threshold": threshold}
    return pd.DataFrame(table)[keep].reset_index(drop=True)


def roc_band(
    labels: ArrayLike, probability: ArrayLike, groups: ArrayLike, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Compute the pointwise 95 % interval of the ROC curve over patients.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        groups: (images,), patient group of each image.
        resamples: number of bootstrap replicates.
        seed: seed of the draw.

    Returns:
        Columns false_positive_rate (a grid of [0, 1]), low, high (sensitivity).
    """
    grid = np.linspace(0, 1, BAND_POINTS)
    low, high = bootstrap_band(
        lambda weights: roc_rates(labels, probability, weights),
        labels,
        groups,
        grid,
        resamples=resamples,
        seed=seed,
    )
    return pd.DataFrame({"false_positive_rate": grid, "low": low, "high": high})


def precision_recall_curve(labels: ArrayLike, probability: ArrayLike) -> pd.DataFrame:
    """Compute precision against sensitivity (recall).

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].

    Returns:
        Columns sensitivity, precision, threshold (the lowest score called pneumonia), by rising sensitivity.
    """
    target = np.asarray(labels, dtype=np.float64)
    threshold, member = np.unique(np.asarray(probability, dtype=np.float64), return_inverse=True)
    positives = np.bincount(member, target, threshold.size)[::-1].cumsum()
    flagged = np.bincount(member, minlength=threshold.size)[::-1].cumsum()
    total = target.sum()
    sensitivity = positives / total if total else np.full(threshold.size, np.nan)
    return pd.DataFrame({"sensitivity": sensitivity, "precision": positives / flagged, "threshold": threshold[::-1]})


def calibration_curve(labels: ArrayLike, raw: ArrayLike, calibrated: ArrayLike, *, bins: int) -> pd.DataFrame:
    """Compute reliability before and after calibration.

    Args:
        labels: (images,), 0 or 1.
        raw: (images,), the probability that the network gives.
        calibrated: (images,), the probability after temperature scaling.
        bins: number of bins of equal width.

    Returns:
        Column state ("before" or "after") and the columns of :func:`cxr.evaluation.calibration.reliability_table`.
    """
    tables = {
        "before": reliability_table(labels, raw, bins=bins),
        "after": reliability_table(labels, calibrated, bins=bins),
    }
    return pd.concat([table.assign(state=state) for state, table in tables.items()], ignore_index=True)

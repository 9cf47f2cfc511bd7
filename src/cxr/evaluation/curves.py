"""Curves of a classifier as tables: what the figures draw and what ``dvc plots`` compares between models."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxr.evaluation.bootstrap import band
from cxr.evaluation.calibration import reliability
from cxr.evaluation.metrics import BINS, rates

BAND_POINTS = 201


def roc_curve(target: ArrayLike, probability: ArrayLike) -> pd.DataFrame:
    """Receiver operating characteristic.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].

    Returns:
        Columns false_positive_rate, sensitivity, threshold (the lowest score called pneumonia; NaN at the
        origin), from calling nothing to calling everything pneumonia, without corners inside straight lines.
    """
    false_positive_rate, sensitivity = rates(target, probability)
    threshold = np.concatenate([[np.nan], np.unique(np.asarray(probability, dtype=np.float64))[::-1]])
    keep = np.ones(threshold.size, dtype=bool)
    bends = np.abs(np.diff(false_positive_rate, n=2)) + np.abs(np.diff(sensitivity, n=2))
    keep[1:-1] = ~(bends < 1e-12)
    table = {"false_positive_rate": false_positive_rate, "sensitivity": sensitivity, "threshold": threshold}
    return pd.DataFrame(table)[keep].reset_index(drop=True)


def roc_band(
    target: ArrayLike, probability: ArrayLike, groups: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Pointwise 95 % interval of the ROC curve over patients.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        groups: (images,), patient key of each image.
        resamples: bootstrap replicates.
        seed: seed of the draw.

    Returns:
        Columns false_positive_rate (a grid of [0, 1]), low, high (sensitivity).
    """
    grid = np.linspace(0, 1, BAND_POINTS)
    low, high = band(
        lambda weights: rates(target, probability, weights),
        target,
        groups,
        grid,
        resamples=resamples,
        seed=seed,
    )
    return pd.DataFrame({"false_positive_rate": grid, "low": low, "high": high})


def precision_recall_curve(target: ArrayLike, probability: ArrayLike) -> pd.DataFrame:
    """Precision against sensitivity (recall).

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].

    Returns:
        Columns sensitivity, precision, threshold (the lowest score called pneumonia), by rising sensitivity.
    """
    sick = np.asarray(target, dtype=np.float64)
    threshold, member = np.unique(np.asarray(probability, dtype=np.float64), return_inverse=True)
    positives = np.bincount(member, sick, threshold.size)[::-1].cumsum()
    flagged = np.bincount(member, minlength=threshold.size)[::-1].cumsum()
    total = sick.sum()
    sensitivity = positives / total if total else np.full(threshold.size, np.nan)
    return pd.DataFrame({"sensitivity": sensitivity, "precision": positives / flagged, "threshold": threshold[::-1]})


def calibration_curve(target: ArrayLike, raw: ArrayLike, calibrated: ArrayLike, *, bins: int = BINS) -> pd.DataFrame:
    """Reliability before and after calibration.

    Args:
        target: (images,), 0 or 1.
        raw: (images,), the network's probability.
        calibrated: (images,), after temperature scaling.
        bins: bins of equal width.

    Returns:
        Column state ("before" or "after") and those of :func:`cxr.evaluation.calibration.reliability`.
    """
    tables = {
        "before": reliability(target, raw, bins=bins),
        "after": reliability(target, calibrated, bins=bins),
    }
    return pd.concat([table.assign(state=state) for state, table in tables.items()], ignore_index=True)

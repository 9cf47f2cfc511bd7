"""Measures of a binary classifier, optionally weighted, so that a bootstrap computes all replicates at once.

Every function takes ``target`` (images,) of 0 (NORMAL) and 1 (PNEUMONIA), ``probability`` (images,) of
pneumonia in [0, 1] and ``weight`` of shape (..., images) counting how often each image is taken (default:
once). It returns an array of ``weight``'s leading shape, so a scalar array without weights. A measure that is
undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 wherever a logarithm is taken."""

BINS = 15
"""Bins of the expected calibration error (Guo et al. 2017, "On calibration of modern neural networks")."""

RANKING = ("auroc", "average_precision")
DECISION = ("accuracy", "sensitivity", "specificity", "precision", "f1")
PROBABILITY = ("brier", "log_loss", "calibration_error", "calibration_error_adaptive")
MEASURES = (*RANKING, *DECISION, *PROBABILITY)
"""All measures, in the order of reports."""

ROUNDING = 1e-12
"""Differences of a rate below this are none."""

COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


def auroc(target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Area under the ROC curve: the chance that an image with pneumonia scores above one without.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1]; ties count half.
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), in [0, 1]; NaN without both classes.
    """
    positive, negative = _by_score(target, probability, weight)
    below = np.cumsum(negative, axis=-1) - negative / 2
    wins = (positive * below).sum(axis=-1)
    return _ratio(wins, positive.sum(axis=-1) * negative.sum(axis=-1))


def average_precision(target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Area under the precision-recall curve as a sum of steps, without interpolation.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), in [0, 1]; NaN without a positive image.
    """
    positive, negative = _by_score(target, probability, weight)
    true = np.cumsum(positive[..., ::-1], axis=-1)
    flagged = true + np.cumsum(negative[..., ::-1], axis=-1)
    precision = np.divide(true, flagged, out=np.zeros_like(true), where=flagged > 0)
    return _ratio((precision * positive[..., ::-1]).sum(axis=-1), positive.sum(axis=-1))


def confusion(
    target: ArrayLike, probability: ArrayLike, threshold: float, weight: ArrayLike | None = None
) -> dict[str, Floats]:
    """Count the four outcomes of the decision ``probability >= threshold``.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        threshold: probability from which an image is called pneumonia.
        weight: (..., images), at least 0; once each by default.

    Returns:
        The names of :data:`COUNTS` to (...) counts.
    """
    sick = np.asarray(target, dtype=bool)
    called = np.asarray(probability, dtype=np.float64) >= threshold
    outcomes = np.stack([sick & called, ~sick & called, ~sick & ~called, sick & ~called], axis=-1)
    counts = _weights(weight, sick.size) @ outcomes.astype(np.float64)
    return {name: np.asarray(counts[..., position]) for position, name in enumerate(COUNTS)}


def decision_measures(counts: Mapping[str, Floats]) -> dict[str, Floats]:
    """Accuracy, sensitivity, specificity, precision and F1 of counted outcomes.

    Args:
        counts: what :func:`confusion` returns.

    Returns:
        The names of :data:`DECISION` to (...) values in [0, 1]; NaN where the denominator is 0 (for
        example the precision of a classifier that calls nothing pneumonia).
    """
    tp, fp, tn, fn = (np.asarray(counts[name], dtype=np.float64) for name in COUNTS)
    return {
        "accuracy": _ratio(tp + tn, tp + fp + tn + fn),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "precision": _ratio(tp, tp + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def brier(target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Mean squared distance between probability and outcome (Brier 1950); 0 is perfect.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), in [0, 1]; NaN without images.
    """
    error = (np.asarray(probability, dtype=np.float64) - np.asarray(target, dtype=np.float64)) ** 2
    return _mean(error, weight)


def log_loss(target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Mean binary cross-entropy in nats, probabilities kept :data:`EPSILON` away from 0 and 1.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), at least 0; NaN without images.
    """
    sick = np.asarray(target, dtype=bool)
    p = np.clip(np.asarray(probability, dtype=np.float64), EPSILON, 1 - EPSILON)
    return _mean(-np.log(np.where(sick, p, 1 - p)), weight)


def bin_of(probability: ArrayLike, bins: int = BINS, *, adaptive: bool = False) -> NDArray[np.intp]:
    """Assign each probability to a bin of the calibration error.

    Args:
        probability: (images,), in [0, 1].
        bins: number of bins.
        adaptive: equal numbers of images per bin (by rank, ties together) instead of equal widths.

    Returns:
        (images,), in 0 .. bins - 1. Equal-width bins are closed below, the last one on both sides.
    """
    p = np.asarray(probability, dtype=np.float64)
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    if adaptive and p.size:
        edges = np.unique(np.quantile(p, edges))
    return np.searchsorted(edges, p, side="right")


def calibration_error(
    target: ArrayLike,
    probability: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    bins: int = BINS,
    adaptive: bool = False,
) -> Floats:
    """Expected calibration error: gap between mean probability and observed share per bin, averaged by size.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1], of pneumonia (not the confidence in the predicted class).
        weight: (..., images), at least 0; once each by default.
        bins: number of bins.
        adaptive: bins of equal counts instead of equal widths (Nixon et al. 2019).

    Returns:
        (...), in [0, 1]; NaN without images.
    """
    gap = np.asarray(probability, dtype=np.float64) - np.asarray(target, dtype=np.float64)
    member = np.zeros((gap.size, bins))
    member[np.arange(gap.size), bin_of(probability, bins, adaptive=adaptive)] = gap
    weights = _weights(weight, gap.size)
    return _ratio(np.abs(weights @ member).sum(axis=-1), weights.sum(axis=-1))


def measure(
    target: ArrayLike,
    probability: ArrayLike,
    threshold: float,
    weight: ArrayLike | None = None,
    *,
    bins: int = BINS,
) -> dict[str, Floats]:
    """Compute every measure of :data:`MEASURES`.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        threshold: probability from which an image is called pneumonia.
        weight: (..., images), at least 0; once each by default.
        bins: bins of the calibration errors.

    Returns:
        Measure name to (...) values; NaN where undefined.
    """
    values: dict[str, Any] = {
        "auroc": auroc(target, probability, weight),
        "average_precision": average_precision(target, probability, weight),
        **decision_measures(confusion(target, probability, threshold, weight)),
        "brier": brier(target, probability, weight),
        "log_loss": log_loss(target, probability, weight),
        "calibration_error": calibration_error(target, probability, weight, bins=bins),
        "calibration_error_adaptive": calibration_error(target, probability, weight, bins=bins, adaptive=True),
    }
    return {name: values[name] for name in MEASURES}


def rates(target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Corners of the ROC curve, from calling nothing to calling everything pneumonia.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        False positive rate and sensitivity, each (..., distinct scores + 1); NaN for an absent class.
        Corner k calls the k highest distinct scores pneumonia.
    """
    positive, negative = _by_score(target, probability, weight)
    corners = []
    for mass in (negative, positive):
        total = np.cumsum(mass[..., ::-1], axis=-1)
        total = np.concatenate([np.zeros_like(total[..., :1]), total], axis=-1)
        corners.append(_ratio(total, np.broadcast_to(total[..., -1:], total.shape)))
    return corners[0], corners[1]


def sensitivity_at(
    specificity: float, target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None
) -> Floats:
    """Highest sensitivity that a threshold reaches without falling below a specificity.

    Args:
        specificity: wanted specificity, in [0, 1].
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), in [0, 1]; NaN without both classes.
    """
    called, found = rates(target, probability, weight)
    fit = np.where(called <= 1 - specificity + ROUNDING, found, -np.inf)
    best = fit.max(axis=-1)
    return np.where(np.isfinite(best) & np.isfinite(called[..., -1]), best, np.nan)


def _by_score(target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None) -> tuple[Floats, Floats]:
    """Sum each class's weights over equal scores, ascending: (positive, negative), each (..., scores)."""
    sick = np.asarray(target, dtype=bool)
    scores = np.asarray(probability, dtype=np.float64)
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    starts = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]]) if scores.size else np.array([], dtype=int)
    weights = _weights(weight, scores.size)[..., order]
    if not scores.size:
        return weights, weights
    positive = np.add.reduceat(np.where(sick[order], weights, 0.0), starts, axis=-1)
    negative = np.add.reduceat(np.where(sick[order], 0.0, weights), starts, axis=-1)
    return positive, negative


def _weights(weight: ArrayLike | None, images: int) -> Floats:
    return np.ones(images) if weight is None else np.asarray(weight, dtype=np.float64)


def _mean(values: Floats, weight: ArrayLike | None) -> Floats:
    weights = _weights(weight, values.size)
    return _ratio(weights @ values, weights.sum(axis=-1))


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Divide, with NaN where the denominator is 0."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.asarray(np.divide(top, bottom, out=np.full(bottom.shape, np.nan), where=bottom != 0))

"""Metrics of a binary classifier, optionally weighted, so that a bootstrap computes all replicates at once.

Every function takes ``labels`` (images,) of 0 (NORMAL) and 1 (PNEUMONIA), ``probability`` (images,) of pneumonia in
[0, 1] and ``weight`` of shape (..., images), the number of times that each image is counted (default: once). It
returns an array with the leading shape of ``weight``, so a scalar array without weights. An undefined metric is NaN.

:data:`METRICS` at the end of this file lists the metrics of every report. A new metric is a function and a row there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 wherever a logarithm is taken."""

ROUNDING = 1e-12
"""Smaller differences between two rates count as none."""

COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


def auroc(labels: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Area under the ROC curve: the probability that an image with pneumonia scores above one without.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1]; ties count half.
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), in [0, 1]; NaN without both classes.
    """
    positive, negative = _by_score(labels, probability, weight)
    below = np.cumsum(negative, axis=-1) - negative / 2
    wins = (positive * below).sum(axis=-1)
    return _ratio(wins, positive.sum(axis=-1) * negative.sum(axis=-1))


def average_precision(labels: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Area under the precision-recall curve as a sum of steps, without interpolation.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), in [0, 1]; NaN without a positive image.
    """
    positive, negative = _by_score(labels, probability, weight)
    true = np.cumsum(positive[..., ::-1], axis=-1)
    flagged = true + np.cumsum(negative[..., ::-1], axis=-1)
    precision = np.divide(true, flagged, out=np.zeros_like(true), where=flagged > 0)
    return _ratio((precision * positive[..., ::-1]).sum(axis=-1), positive.sum(axis=-1))


def oracle_accuracy(labels: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Highest accuracy that any threshold reaches: an upper bound, because these very images choose the threshold.

    Never choose anything by it. It shows what a figure that was selected on test can reach at most.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), in [0, 1]; NaN without images.
    """
    positive, negative = _by_score(labels, probability, weight)
    # The lowest threshold calls every image pneumonia. One above score k clears the normal images up to k, and misses
    # those with pneumonia.
    gain = (np.cumsum(negative, axis=-1) - np.cumsum(positive, axis=-1)).max(axis=-1, initial=0.0)
    return _ratio(positive.sum(axis=-1) + gain, positive.sum(axis=-1) + negative.sum(axis=-1))


def confusion(
    labels: ArrayLike, probability: ArrayLike, threshold: float, weight: ArrayLike | None = None
) -> dict[str, Floats]:
    """Count the four outcomes of the decision ``probability >= threshold``.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        threshold: probability from which an image is called pneumonia.
        weight: (..., images), at least 0; once each by default.

    Returns:
        Each name of :data:`COUNTS` to (...) counts.
    """
    is_positive = np.asarray(labels, dtype=bool)
    called = np.asarray(probability, dtype=np.float64) >= threshold
    outcomes = np.stack(
        [is_positive & called, ~is_positive & called, ~is_positive & ~called, is_positive & ~called], axis=-1
    )
    counts = _weights(weight, is_positive.size) @ outcomes.astype(np.float64)
    return {name: np.asarray(counts[..., position]) for position, name in enumerate(COUNTS)}


def decision_metrics(counts: Mapping[str, Floats]) -> dict[str, Floats]:
    """Compute the metrics of :data:`METRICS` that depend on the decision alone, from counted outcomes.

    Args:
        counts: the return value of :func:`confusion`.

    Returns:
        Metric name to (...) values; NaN where the denominator is 0 (for example the precision of a classifier that
        calls no image pneumonia).
    """
    outcomes = [np.asarray(counts[name], dtype=np.float64) for name in COUNTS]
    return {name: metric.compute(*outcomes) for name, metric in METRICS.items() if metric.kind == "decision"}


def brier_score(labels: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Mean squared distance between probability and outcome (Brier 1950); 0 is perfect.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), in [0, 1]; NaN without images.
    """
    error = (np.asarray(probability, dtype=np.float64) - np.asarray(labels, dtype=np.float64)) ** 2
    return _mean(error, weight)


def log_loss(labels: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Floats:
    """Mean binary cross-entropy in nats, probabilities kept :data:`EPSILON` away from 0 and 1.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), at least 0; NaN without images.
    """
    is_positive = np.asarray(labels, dtype=bool)
    p = np.clip(np.asarray(probability, dtype=np.float64), EPSILON, 1 - EPSILON)
    return _mean(-np.log(np.where(is_positive, p, 1 - p)), weight)


def bin_index(probability: ArrayLike, bins: int, *, adaptive: bool = False) -> NDArray[np.intp]:
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
    labels: ArrayLike,
    probability: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    bins: int,
    adaptive: bool = False,
) -> Floats:
    """Expected calibration error: gap between mean probability and observed share per bin, averaged by size.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1], of pneumonia (not the confidence in the predicted class).
        weight: (..., images), at least 0; once each by default.
        bins: number of bins.
        adaptive: bins of equal counts instead of equal widths (Nixon et al. 2019).

    Returns:
        (...), in [0, 1]; NaN without images.
    """
    gap = np.asarray(probability, dtype=np.float64) - np.asarray(labels, dtype=np.float64)
    member = np.zeros((gap.size, bins))
    member[np.arange(gap.size), bin_index(probability, bins, adaptive=adaptive)] = gap
    weights = _weights(weight, gap.size)
    return _ratio(np.abs(weights @ member).sum(axis=-1), weights.sum(axis=-1))


def compute_metrics(
    labels: ArrayLike,
    probability: ArrayLike,
    threshold: float,
    weight: ArrayLike | None = None,
    *,
    bins: int,
) -> dict[str, Floats]:
    """Compute every metric of :data:`METRICS`.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        threshold: probability from which an image is called pneumonia.
        weight: (..., images), at least 0; once each by default.
        bins: number of bins of the calibration errors.

    Returns:
        Metric name to (...) values, in the order of the table; NaN where undefined.
    """
    decision = decision_metrics(confusion(labels, probability, threshold, weight))
    values = {}
    for name, metric in METRICS.items():
        if metric.kind == "decision":
            values[name] = decision[name]
        elif metric.kind == "calibration":
            values[name] = metric.compute(labels, probability, weight, bins=bins)
        else:
            values[name] = metric.compute(labels, probability, weight)
    return values


def roc_rates(labels: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Compute the corners of the ROC curve, from calling no image to calling every image pneumonia.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        False positive rate and sensitivity, each (..., distinct scores + 1); NaN for an absent class.
        Corner k calls the k highest distinct scores pneumonia.
    """
    positive, negative = _by_score(labels, probability, weight)
    corners = []
    for mass in (negative, positive):
        total = np.cumsum(mass[..., ::-1], axis=-1)
        total = np.concatenate([np.zeros_like(total[..., :1]), total], axis=-1)
        corners.append(_ratio(total, np.broadcast_to(total[..., -1:], total.shape)))
    return corners[0], corners[1]


def sensitivity_at(
    specificity: float, labels: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None
) -> Floats:
    """Compute the highest sensitivity of the thresholds that keep a specificity.

    Args:
        specificity: specificity to keep, in [0, 1].
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        weight: (..., images), at least 0; once each by default.

    Returns:
        (...), in [0, 1]; NaN without both classes.
    """
    false_positive_rate, sensitivity = roc_rates(labels, probability, weight)
    allowed = np.where(false_positive_rate <= 1 - specificity + ROUNDING, sensitivity, -np.inf)
    best = allowed.max(axis=-1)
    return np.where(np.isfinite(best) & np.isfinite(false_positive_rate[..., -1]), best, np.nan)


def _by_score(labels: ArrayLike, probability: ArrayLike, weight: ArrayLike | None) -> tuple[Floats, Floats]:
    """Sum the weights of each class over equal scores, ascending: (positive, negative), each (..., scores)."""
    is_positive = np.asarray(labels, dtype=bool)
    scores = np.asarray(probability, dtype=np.float64)
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    starts = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]]) if scores.size else np.array([], dtype=int)
    weights = _weights(weight, scores.size)[..., order]
    if not scores.size:
        return weights, weights
    positive = np.add.reduceat(np.where(is_positive[order], weights, 0.0), starts, axis=-1)
    negative = np.add.reduceat(np.where(is_positive[order], 0.0, weights), starts, axis=-1)
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


@dataclass(frozen=True)
class Metric:
    """A metric as reports compute and show it.

    Attributes:
        title: name for readers.
        kind: what it depends on. ``"ranking"`` and ``"probability"``: the probabilities; ``"calibration"``: also the
            number of bins; ``"decision"``: the threshold. Rankings are the same before and after calibration.
        compute: function of labels, probability and weight (and ``bins``, for a calibration metric); for a decision
            metric of the true positives, false positives, true negatives and false negatives, each (...) float64.
        in_summary: whether ``summary.json``, the tracking server, the model card and the page of results show it.
        is_share: whether it is written in percent.
        decimals: digits after the point where it is not written in percent.
    """

    title: str
    kind: Literal["ranking", "decision", "probability", "calibration"]
    compute: Callable[..., Floats]
    in_summary: bool = True
    is_share: bool = False
    decimals: int = 3


METRICS: Mapping[str, Metric] = {
    "auroc": Metric("AUROC", "ranking", auroc, decimals=4),
    "average_precision": Metric("Average precision", "ranking", average_precision),
    "accuracy": Metric(
        "Accuracy", "decision", lambda tp, fp, tn, fn: _ratio(tp + tn, tp + fp + tn + fn), is_share=True
    ),
    "sensitivity": Metric("Sensitivity", "decision", lambda tp, fp, tn, fn: _ratio(tp, tp + fn), is_share=True),
    "specificity": Metric("Specificity", "decision", lambda tp, fp, tn, fn: _ratio(tn, tn + fp), is_share=True),
    "precision": Metric("Precision", "decision", lambda tp, fp, tn, fn: _ratio(tp, tp + fp), is_share=True),
    "f1": Metric("F1", "decision", lambda tp, fp, tn, fn: _ratio(2 * tp, 2 * tp + fp + fn), is_share=True),
    "brier": Metric("Brier score", "probability", brier_score),
    "log_loss": Metric("Log loss", "probability", log_loss, in_summary=False),
    "calibration_error": Metric("Calibration error", "calibration", calibration_error),
    "calibration_error_adaptive": Metric(
        "Calibration error adaptive", "calibration", partial(calibration_error, adaptive=True), in_summary=False
    ),
    "oracle_accuracy": Metric(
        "Highest accuracy of any threshold", "ranking", oracle_accuracy, in_summary=False, is_share=True
    ),
}
"""Key in reports to metric, in the order of reports."""

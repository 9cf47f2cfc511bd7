"""Chooses the threshold from which an image is called pneumonia, on validation images."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.errors import ParameterError
from cxr.evaluation.calibration import check_both_classes
from cxr.evaluation.metrics import COUNTS, Floats, confusion, decision_metrics

ThresholdRule = Literal["sensitivity", "specificity", "youden", "f1", "accuracy", "fixed"]
"""What the threshold is chosen for.

``sensitivity``: the highest specificity at a sensitivity of at least the target. ``specificity``: the highest
sensitivity at a specificity of at least the target. ``youden``, ``f1``, ``accuracy``: the highest value of
sensitivity + specificity - 1, of F1, of accuracy. ``fixed``: the target is the threshold.
"""

TOLERANCE = 1e-12
"""Tolerance, so that 19 of 20 meet a target of 0.95 whatever the last bit of the division is."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, the rule that chose it and what it achieves on the validation images.

    Attributes:
        rule: rule that chose it.
        target: wanted value of the rule; None for rules without one.
        threshold: an image is called pneumonia when its probability is at least this.
        sensitivity: achieved on validation.
        specificity: achieved on validation.
        accuracy: achieved on validation.
        f1: achieved on validation; NaN where undefined.
    """

    rule: ThresholdRule
    target: float | None
    threshold: float
    sensitivity: float
    specificity: float
    accuracy: float
    f1: float

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """Describe the rule.

        Returns:
            For example ``"highest specificity at a validation sensitivity of at least 95 %"``.
        """
        share = "" if self.target is None else f"{100 * self.target:.4g} %"
        return {
            "sensitivity": f"highest specificity at a validation sensitivity of at least {share}",
            "specificity": f"highest sensitivity at a validation specificity of at least {share}",
            "youden": "highest sum of validation sensitivity and specificity",
            "f1": "highest validation F1",
            "accuracy": "highest validation accuracy",
            "fixed": f"fixed at {self.target}",
        }[self.rule]


def choose_operating_point(
    labels: ArrayLike, probability: ArrayLike, *, rule: ThresholdRule, target: float
) -> OperatingPoint:
    """Choose the threshold. Pass validation images only, never test images.

    Every chosen threshold lies midway between two neighbouring scores, so that it does not depend on the last bit of
    one image's probability. Of equally good thresholds the lowest is chosen: it misses the fewest patients. If no
    threshold reaches a wanted specificity, the highest specificity is taken, with a warning.

    Args:
        labels: (images,), 0 or 1, both present.
        probability: (images,), in [0, 1].
        rule: what to choose for, see :data:`ThresholdRule`.
        target: wanted sensitivity or specificity, or the threshold itself for ``fixed``; in [0, 1].

    Returns:
        The operating point with its metrics on these images.

    Raises:
        DataError: if one of the classes is missing.
        ParameterError: if ``target`` is outside [0, 1].
    """
    truth, scores = check_both_classes(labels), np.asarray(probability, dtype=np.float64)
    if not 0 <= target <= 1:
        raise ParameterError([f"expected the target of rule {rule} in 0 .. 1, received {target=}"])
    thresholds = np.array([target]) if rule == "fixed" else candidate_thresholds(scores)
    metrics = _metrics_at(truth, scores, thresholds)
    best = int(_preference(rule, target, metrics).argmax())
    achieved = {name: float(metrics[name][best]) for name in ("sensitivity", "specificity", "accuracy", "f1")}
    if rule == "specificity" and achieved["specificity"] < target - TOLERANCE:
        logger.warning(
            "no threshold reaches specificity %.4g on validation; %.4g is taken", target, achieved["specificity"]
        )
    if rule != "fixed" and min(achieved["sensitivity"], achieved["specificity"]) == 0:
        logger.warning(
            "threshold %.4g of rule %s (target %s) calls all validation images the same",
            thresholds[best],
            rule,
            target,
        )
    used_target = target if rule in ("sensitivity", "specificity", "fixed") else None
    return OperatingPoint(rule, used_target, float(thresholds[best]), **achieved)


def candidate_thresholds(scores: Floats) -> Floats:
    """List the thresholds that separate the images in every possible way.

    Args:
        scores: (images,), in [0, 1].

    Returns:
        Ascending, in [0, 1]: below all scores, midway between neighbours, above all scores; the last one is left out
        when a score is 1, because a threshold never exceeds 1.
    """
    distinct = np.unique(scores)
    lower, upper = distinct[:-1], distinct[1:]
    middle = (lower + upper) / 2
    # Between two adjacent floats the middle rounds to one of them: the upper one still separates them.
    middle = np.where(middle > lower, middle, upper)
    top = [max((distinct[-1] + 1) / 2, np.nextafter(distinct[-1], 2.0))] if distinct[-1] < 1 else []
    return np.concatenate([[distinct[0] / 2], middle, top])


def _metrics_at(truth: NDArray[np.int64], scores: Floats, thresholds: Floats) -> dict[str, Floats]:
    """Decision metrics at each ascending threshold, from sorted scores instead of one pass per threshold."""
    if thresholds.size == 1:
        counts = {name: np.atleast_1d(count) for name, count in confusion(truth, scores, float(thresholds[0])).items()}
        return decision_metrics(counts)
    missed = np.searchsorted(np.sort(scores[truth == 1]), thresholds, side="left").astype(np.float64)
    cleared = np.searchsorted(np.sort(scores[truth == 0]), thresholds, side="left").astype(np.float64)
    positives, negatives = float(truth.sum()), float((1 - truth).sum())
    return decision_metrics(dict(zip(COUNTS, (positives - missed, negatives - cleared, cleared, missed), strict=True)))


def _preference(rule: ThresholdRule, target: float, metrics: dict[str, Floats]) -> Floats:
    """Value of each threshold under a rule; the first (lowest) of the highest is chosen."""
    sensitivity, specificity = metrics["sensitivity"], metrics["specificity"]
    if rule == "sensitivity":
        return np.where(sensitivity >= target - TOLERANCE, specificity, -1.0)
    if rule == "specificity":
        # The small share of specificity prefers the higher one among equal sensitivities.
        reached = specificity >= target - TOLERANCE
        return np.where(reached, sensitivity + 1e-9 * specificity, specificity - 2)
    if rule == "youden":
        return np.round(sensitivity + specificity - 1, 12)
    if rule in ("f1", "accuracy"):
        return np.nan_to_num(np.round(metrics[rule], 12), nan=-1.0)
    return np.zeros(sensitivity.shape)

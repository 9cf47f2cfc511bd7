"""Choice of the threshold from which an image is called pneumonia, made on validation images."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from cxr.errors import DataError, ParameterError
from cxr.evaluation.metrics import COUNTS, Floats, confusion, decision_measures

Rule = Literal["sensitivity", "specificity", "youden", "f1", "accuracy", "fixed"]
"""What a threshold is chosen for.

``sensitivity``: the highest specificity at a sensitivity of at least the target. ``specificity``: the highest
sensitivity at a specificity of at least the target. ``youden``, ``f1``, ``accuracy``: the highest value of
sensitivity + specificity - 1, of F1, of accuracy. ``fixed``: the target is the threshold.
"""

SLACK = 1e-12
"""A target such as 0.95 counts as met by 19 of 20, whatever the last bit of the division."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, why it was chosen and what it achieves on the images that it was chosen on.

    Attributes:
        rule: rule that chose it.
        target: value the rule was given; None for rules without one.
        threshold: an image is called pneumonia when its probability is at least this.
        sensitivity: achieved on validation.
        specificity: achieved on validation.
        accuracy: achieved on validation.
        f1: achieved on validation; NaN where undefined.
    """

    rule: Rule
    target: float | None
    threshold: float
    sensitivity: float
    specificity: float
    accuracy: float
    f1: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON.

        Returns:
            Attribute name to value.
        """
        return asdict(self)

    def sentence(self) -> str:
        """Say the rule in words.

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


def choose(
    target: ArrayLike, probability: ArrayLike, *, rule: Rule = "sensitivity", goal: float = 0.95
) -> OperatingPoint:
    """Choose the threshold. Give it validation images only, never test images.

    Every chosen threshold lies midway between two neighbouring scores, so that it does not hang on the last
    bit of one image's probability. Of equally good thresholds the lowest wins: it misses the fewest patients.
    A specificity that no threshold reaches gives the highest one there is, with a warning.

    Args:
        target: (images,), 0 or 1, both present.
        probability: (images,), in [0, 1].
        rule: what to choose for, see :data:`Rule`.
        goal: wanted sensitivity or specificity, or the threshold itself for ``fixed``; in [0, 1].

    Returns:
        The operating point with its figures on these images.

    Raises:
        DataError: if one of the classes is missing.
        ParameterError: if ``goal`` is outside [0, 1].
    """
    sick = np.asarray(target, dtype=np.int64)
    scores = np.asarray(probability, dtype=np.float64)
    if sick.size == 0 or sick.min() == sick.max():
        raise DataError(
            "expected validation images of both classes, "
            f"received images={sick.size}, pneumonia={int(sick.sum())}; "
            "choose a split with a larger validation share"
        )
    if not 0 <= goal <= 1:
        raise ParameterError([f"expected the target of rule {rule} in 0 .. 1, received target={goal}"])
    thresholds = np.array([goal]) if rule == "fixed" else candidates(scores)
    figures = _figures(sick, scores, thresholds)
    best = int(_preference(rule, goal, figures).argmax())
    achieved = {name: float(values[best]) for name, values in figures.items() if name != "precision"}
    if rule == "specificity" and achieved["specificity"] < goal - SLACK:
        logger.warning("no threshold reaches specificity %.4g on validation: %.4g it is", goal, achieved["specificity"])
    if rule != "fixed" and min(achieved["sensitivity"], achieved["specificity"]) == 0:
        logger.warning(
            "threshold %.4g of rule %s (target %s) calls all validation images the same",
            thresholds[best],
            rule,
            goal,
        )
    goal_or_none = goal if rule in ("sensitivity", "specificity", "fixed") else None
    return OperatingPoint(rule, goal_or_none, float(thresholds[best]), **achieved)


def candidates(scores: Floats) -> Floats:
    """Thresholds that tell the images apart in every possible way.

    Args:
        scores: (images,), in [0, 1].

    Returns:
        Ascending, in [0, 1]: below all scores, midway between neighbours, above all scores; the last is left
        out when a score is 1, because a threshold never exceeds 1.
    """
    distinct = np.unique(scores)
    lower, upper = distinct[:-1], distinct[1:]
    middle = (lower + upper) / 2
    # Between two adjacent floats the middle rounds to one of them: the upper one still separates them.
    middle = np.where(middle > lower, middle, upper)
    top = [max((distinct[-1] + 1) / 2, np.nextafter(distinct[-1], 2.0))] if distinct[-1] < 1 else []
    return np.concatenate([[distinct[0] / 2], middle, top])


def _figures(sick: np.ndarray[Any, np.dtype[np.int64]], scores: Floats, thresholds: Floats) -> dict[str, Floats]:
    """Decision measures at each ascending threshold, from sorted scores instead of one pass per threshold."""
    if thresholds.size == 1:
        counts = {name: np.atleast_1d(count) for name, count in confusion(sick, scores, float(thresholds[0])).items()}
        return decision_measures(counts)
    missed = np.searchsorted(np.sort(scores[sick == 1]), thresholds, side="left").astype(np.float64)
    spared = np.searchsorted(np.sort(scores[sick == 0]), thresholds, side="left").astype(np.float64)
    positives, negatives = float(sick.sum()), float((1 - sick).sum())
    return decision_measures(dict(zip(COUNTS, (positives - missed, negatives - spared, spared, missed), strict=True)))


def _preference(rule: Rule, goal: float, figures: dict[str, Floats]) -> Floats:
    """Value of each threshold under a rule; the first (lowest) of the highest is chosen."""
    sensitivity, specificity = figures["sensitivity"], figures["specificity"]
    if rule == "sensitivity":
        return np.where(sensitivity >= goal - SLACK, specificity, -1.0)
    if rule == "specificity":
        # Adding a trace of specificity prefers the higher one among equal sensitivities.
        reached = specificity >= goal - SLACK
        return np.where(reached, sensitivity + 1e-9 * specificity, specificity - 2)
    if rule == "youden":
        return np.round(sensitivity + specificity - 1, 12)
    if rule in ("f1", "accuracy"):
        return np.nan_to_num(np.round(figures[rule], 12), nan=-1.0)
    return np.zeros(sensitivity.shape)

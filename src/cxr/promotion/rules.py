"""Which version may be served: rules that look at facts, without any registry.

Validation chooses the challenger, and decides whether it is better than the champion. The test images can only refuse
it: by limits of its own, and if the challenger is worse than the champion on them by more than chance and a margin.
Test images thus never choose between models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxr.models.metadata import NAME_SEPARATOR
from cxr.promotion.facts import AUROC, SENSITIVITY, ChooseBy, PromotionPolicy, VersionFacts

if TYPE_CHECKING:
    from cxr.evaluation.comparison import MetricDifference, ModelComparison
    from cxr.promotion.comparison import VersionComparison

ROUNDING = 1e-9
"""Smaller differences count as none."""


@dataclass(frozen=True)
class RuleResult:
    """One rule and its result.

    Attributes:
        name: short name.
        passed: whether the rule is kept.
        figure: the value that was found.
        limit: the value that the rule demands.
        sentence: both in a sentence.
    """

    name: str
    passed: bool
    figure: float | str | bool
    limit: float | str | bool
    sentence: str


@dataclass(frozen=True)
class PromotionDecision:
    """Whether the challenger becomes champion, and why.

    Attributes:
        promote: whether the alias has to move.
        candidate: version of the challenger.
        champion: version that is champion after the decision; None if there is none.
        recommended: whether only a person's own choice prevents the promotion.
        rules: results of all rules in order; empty when the challenger is champion already.
    """

    promote: bool
    candidate: str
    champion: str | None
    recommended: bool
    rules: tuple[RuleResult, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Sentences of the broken rules."""
        return tuple(rule.sentence for rule in self.rules if not rule.passed)


def choose_challenger(candidates: Sequence[VersionFacts], choose_by: ChooseBy) -> VersionFacts | None:
    """Choose the challenger: the highest figure on validation, the first of equals.

    Args:
        candidates: versions judged on the same split.
        choose_by: which figure.

    Returns:
        The challenger, or None if no candidate has a known figure.
    """
    known = [facts for facts in candidates if not math.isnan(facts.choice_figure(choose_by))]
    return max(known, key=lambda facts: facts.choice_figure(choose_by), default=None)


def decide(
    candidate: VersionFacts,
    champion: VersionFacts | None,
    policy: PromotionPolicy,
    *,
    comparison: VersionComparison | None = None,
    chosen_by_person: bool = False,
) -> PromotionDecision:
    """Decide whether a challenger becomes champion; a tie keeps the champion.

    Args:
        candidate: the challenger.
        champion: the version that is champion now; None if there is none.
        policy: the limits.
        comparison: both on the same images, if :func:`cxr.promotion.comparison.are_comparable`.
        chosen_by_person: whether a person has chosen the champion.

    Returns:
        The decision with the result of every rule.
    """
    if champion is not None and champion.version == candidate.version:
        return PromotionDecision(False, candidate.version, champion.version, False, ())
    rules = [
        _check_files(candidate),
        _check_device(candidate, policy),
        _check_floor("AUROC", candidate.test_auroc, policy.min_auroc),
        _check_floor("sensitivity", candidate.test_sensitivity, policy.min_sensitivity),
        _check_ceiling("calibration error", candidate.test_calibration_error, policy.max_calibration_error),
    ]
    if champion is not None:
        rules += _check_against_champion(candidate, champion, comparison, policy)
    suitable = all(rule.passed for rule in rules)
    person_decides = champion is not None and (chosen_by_person or champion.pinned)
    if champion is not None and person_decides:
        how = "pinned" if champion.pinned else "chosen by a person"
        sentence = f"a person has chosen version {champion.version} as champion; a run never overrules that"
        if champion.pinned:
            sentence = f"version {champion.version} is pinned as champion; a run never overrules that"
        rules.append(RuleResult("person", False, how, "not chosen by a person", sentence))
    promote = suitable and not person_decides
    champion_after = candidate.version if promote else champion.version if champion else None
    return PromotionDecision(promote, candidate.version, champion_after, suitable and person_decides, tuple(rules))


def _check_files(candidate: VersionFacts) -> RuleResult:
    passed, missing = not candidate.missing_files, ", ".join(candidate.missing_files)
    sentence = "all its files are in the store" if passed else f"it has lost {missing}"
    return RuleResult("files", passed, missing, "", sentence)


def _check_device(candidate: VersionFacts, policy: PromotionPolicy) -> RuleResult:
    proven = candidate.gpu and not candidate.evidence_missing
    passed = proven or not policy.require_gpu
    sentence = f"trained on {'a GPU' if candidate.gpu else 'a CPU'} ({candidate.device or 'unknown device'})"
    if not candidate.gpu and NAME_SEPARATOR in candidate.device:
        sentence = f"not trained on GPUs alone ({candidate.device})"
    if candidate.gpu and candidate.evidence_missing:
        sentence += f", as it says without {', '.join(candidate.evidence_missing)}"
    if not passed:
        sentence += "; the policy wants proof of a GPU: train on one, or set promotion.require_gpu to false for a trial"
    return RuleResult("gpu", passed, proven, policy.require_gpu, sentence)


def _check_floor(name: str, figure: float, limit: float) -> RuleResult:
    passed = figure >= limit  # false for NaN: an unknown figure passes no rule
    return _limit_result(name, figure, limit, passed, "reaches" if passed else "is below", "floor")


def _check_ceiling(name: str, figure: float, limit: float) -> RuleResult:
    passed = figure <= limit
    return _limit_result(name, figure, limit, passed, "keeps" if passed else "is above", "ceiling")


def _limit_result(name: str, figure: float, limit: float, passed: bool, verb: str, bound: str) -> RuleResult:
    text = f"{figure:.4f}"
    if math.isnan(figure):
        text, verb = "unknown", "cannot be held against"
    sentence = f"test {name} {text} {verb} the {bound} of {limit:.4f}"
    return RuleResult(name.lower().replace(" ", "_"), passed, figure, limit, sentence)


def _check_against_champion(
    candidate: VersionFacts, champion: VersionFacts, comparison: VersionComparison | None, policy: PromotionPolicy
) -> list[RuleResult]:
    if candidate.dataset_kind != champion.dataset_kind:
        names = {"phantom": "phantoms", "patients": "patients"}
        ours, theirs = (names.get(facts.dataset_kind, "unknown images") for facts in (candidate, champion))
        passed = candidate.dataset_kind == "patients" and champion.dataset_kind == "phantom"
        verb = "may replace" if passed else "never replaces"
        sentence = f"trained on {ours}: it {verb} version {champion.version}, trained on {theirs}"
        return [RuleResult("data", passed, candidate.dataset_kind, champion.dataset_kind, sentence)]
    if comparison is None or comparison.result is None:
        reason = comparison.reason if comparison else "they were not put side by side"
        sentence = f"it cannot be compared with champion version {champion.version}: {reason}"
        return [RuleResult("comparable", False, "not comparable", "comparable", sentence)]
    result = comparison.result
    return [
        _check_better_on_validation(candidate, champion, result, policy),
        _check_not_worse("auroc_on_test", "AUROC", result.test[AUROC], policy.margin, result),
        _check_not_worse(
            "sensitivity_on_test",
            f"sensitivity at {100 * policy.specificity:g} % specificity",
            result.test[SENSITIVITY],
            policy.sensitivity_margin,
            result,
        ),
    ]


def _check_better_on_validation(
    candidate: VersionFacts, champion: VersionFacts, result: ModelComparison, policy: PromotionPolicy
) -> RuleResult:
    measured = "validation AUROC"
    candidate_auroc, champion_auroc = result.validation[AUROC]
    if policy.choose_by == "stressed_validation":
        measured = "mean validation AUROC under acquisition changes"
        candidate_auroc, champion_auroc = candidate.validation_stress_auroc, champion.validation_stress_auroc
        # Both figures were measured before. Those of two splits come from different images.
        if candidate.split_digest != champion.split_digest or math.isnan(candidate_auroc - champion_auroc):
            sentence = (
                f"the {measured} of champion version {champion.version} is not known on the same split; evaluate and "
                "register its model on this split, or set promotion.choose_by to validation"
            )
            return RuleResult("better_on_validation", False, math.nan, policy.min_gain, sentence)
    gain = candidate_auroc - champion_auroc
    better = gain > policy.min_gain + ROUNDING  # false for NaN, and for a tie
    sentence = (
        f"{measured} {candidate_auroc:.4f} against {champion_auroc:.4f} of champion version {champion.version}: "
        f"{gain:+.4f}, where more than {policy.min_gain:+.4f} is asked for"
    )
    return RuleResult("better_on_validation", better, gain, policy.min_gain, sentence)


def _check_not_worse(
    name: str, label: str, difference: MetricDifference, margin: float, result: ModelComparison
) -> RuleResult:
    passed = difference.low >= -margin - ROUNDING  # false for NaN
    sentence = (
        f"test {label} {difference.ours:.4f} against {difference.theirs:.4f}: {difference.difference:+.4f} "
        f"({100 * result.confidence:g} % interval {difference.low:+.4f} to {difference.high:+.4f}), "
        f"where it may lose {margin:.4f} at most"
    )
    return RuleResult(name, passed, difference.low, -margin, sentence)

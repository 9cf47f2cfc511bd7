"""Which version may be served: rules that look at facts, without any registry.

Validation chooses the challenger, and decides whether it is better than the champion. The test images can only refuse
it: by limits of its own, and if the challenger is worse than the champion on them by more than chance and a margin.
Test images thus never choose between models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cxr.models.metadata import NAME_SEPARATOR
from cxr.promotion.facts import ChooseBy, CommonFacts
from cxr.promotion.log import join_names
from cxr.promotion.policy import CommonPolicy, ComparedFigure, FigureLimit

if TYPE_CHECKING:
    from cxr.evaluation.comparison import ModelComparison
    from cxr.promotion.comparison import VersionComparison

Facts = TypeVar("Facts", bound=CommonFacts)

ROUNDING = 1e-9
"""Smaller differences count as none: the last bits of a figure depend on the processor that computed it."""
APPROVAL = "approval"
"""Name of the last rule, which only an approval keeps."""


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
class Approval:
    """What a second person says about a version that keeps all other rules.

    Attributes:
        approved_by: that user.
        trained_by: users that trained the version.
        reason: why it is approved.
    """

    approved_by: str
    trained_by: tuple[str, ...]
    reason: str

    def sentence(self) -> str:
        """Say in a clause who has approved whose version, and why."""
        return f"approved by {self.approved_by}, trained by {join_names(self.trained_by)}: {self.reason}"


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
    def waits(self) -> bool:
        """Whether only the approval of another user is missing."""
        return any(rule.name == APPROVAL and not rule.passed for rule in self.rules)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Sentences of the broken rules."""
        return tuple(rule.sentence for rule in self.rules if not rule.passed)


def choose_challenger(candidates: Sequence[Facts], choose_by: ChooseBy) -> Facts | None:
    """Choose the challenger: the highest figure on validation, the first of equals.

    Args:
        candidates: versions judged on the same split.
        choose_by: which figure.

    Returns:
        The challenger, or None if no candidate has a known figure.
    """
    known = [facts for facts in candidates if not math.isnan(facts.choice_figure(choose_by))]
    best = max((facts.choice_figure(choose_by) for facts in known), default=math.nan)
    return next((facts for facts in known if facts.choice_figure(choose_by) >= best - ROUNDING), None)


def decide(
    candidate: CommonFacts,
    champion: CommonFacts | None,
    policy: CommonPolicy,
    *,
    comparison: VersionComparison | None = None,
    chosen_by_person: bool = False,
    waiting: CommonFacts | None = None,
    approval: Approval | None = None,
) -> PromotionDecision:
    """Decide whether a challenger becomes champion; a tie keeps the champion.

    Args:
        candidate: the challenger.
        champion: the version that is champion now; None if there is none.
        policy: the limits.
        comparison: both on the same images, if :func:`cxr.promotion.comparison.are_comparable`.
        chosen_by_person: whether a person has chosen the champion.
        waiting: the version that waits for approval now; None if there is none.
        approval: of the challenger, by another user than the ones that trained it; None if nobody has approved it.

    Returns:
        The decision with the result of every rule.
    """
    if champion is not None and champion.version == candidate.version:
        return PromotionDecision(False, candidate.version, champion.version, False, ())
    rules = [
        _check_files(candidate),
        *_check_signature(candidate),
        _check_device(candidate, policy),
        *(_check_limit(candidate, limit) for limit in policy.limits),
        *_check_against_references(candidate, policy),
    ]
    if champion is not None:
        rules += _check_against_champion(candidate, champion, comparison, policy)
    if waiting is not None and waiting.version != candidate.version:
        rules += _check_against_waiting(candidate, waiting, policy)
    suitable = all(rule.passed for rule in rules)
    person_decides = champion is not None and (chosen_by_person or champion.pinned)
    if champion is not None and person_decides:
        how = "pinned" if champion.pinned else "chosen by a person"
        sentence = f"a person has chosen version {champion.version} as champion; a run never overrules that"
        if champion.pinned:
            sentence = f"version {champion.version} is pinned as champion; a run never overrules that"
        rules.append(RuleResult("person", False, how, "not chosen by a person", sentence))
    promote = suitable and not person_decides
    if promote and policy.require_approval:
        rules.append(_check_approval(candidate, approval))
        promote = approval is not None
    champion_after = candidate.version if promote else champion.version if champion else None
    return PromotionDecision(promote, candidate.version, champion_after, suitable and person_decides, tuple(rules))


def _check_files(candidate: CommonFacts) -> RuleResult:
    passed, missing = not candidate.missing_files, ", ".join(candidate.missing_files)
    sentence = "all its files are in the store" if passed else f"it has lost {missing}"
    return RuleResult("files", passed, missing, "", sentence)


def _check_signature(candidate: CommonFacts) -> list[RuleResult]:
    """The rule where signatures are required, and none elsewhere."""
    if candidate.unverified is None:
        return []
    passed = not candidate.unverified
    sentence = "signed by a trusted key" if passed else f"its signature is refused: {candidate.unverified}"
    return [RuleResult("signature", passed, passed, True, sentence)]


def _check_device(candidate: CommonFacts, policy: CommonPolicy) -> RuleResult:
    proven = candidate.gpu and not candidate.evidence_missing
    passed = proven or not policy.require_gpu
    sentence = f"trained on {'a GPU' if candidate.gpu else 'a CPU'} ({candidate.device or 'unknown device'})"
    if not candidate.gpu and NAME_SEPARATOR in candidate.device:
        sentence = f"not trained on GPUs alone ({candidate.device})"
    if candidate.gpu and candidate.evidence_missing:
        sentence += f", as it says without {', '.join(candidate.evidence_missing)}"
    if not passed:
        sentence += "; the policy wants proof of a GPU: train on one, or set "
        sentence += f"{policy.SECTION}.require_gpu to false for a trial"
    return RuleResult("gpu", passed, proven, policy.require_gpu, sentence)


def _check_limit(candidate: CommonFacts, limit: FigureLimit) -> RuleResult:
    figure, bound = candidate.figure(limit.figure), "floor" if limit.is_floor else "ceiling"
    # False for NaN: an unknown figure passes no rule.
    passed = figure >= limit.bound - ROUNDING if limit.is_floor else figure <= limit.bound + ROUNDING
    verbs = {True: "reaches", False: "is below"} if limit.is_floor else {True: "keeps", False: "is above"}
    text, verb = f"{figure:.4f}", verbs[passed]
    if math.isnan(figure):
        text, verb = "unknown", "cannot be held against"
    source = candidate.figure_source(limit.figure)
    label = f"{limit.label} ({source})" if source else limit.label
    sentence = f"test {label} {text} {verb} the {bound} of {limit.bound:.4f}"
    return RuleResult(limit.figure.removeprefix("test_"), passed, figure, limit.bound, sentence)


def _check_against_waiting(candidate: CommonFacts, waiting: CommonFacts, policy: CommonPolicy) -> list[RuleResult]:
    """Whether the challenger may take the place of the version that waits: not if that one is as good on the split."""
    is_same_split = (candidate.data_digest, candidate.split_digest) == (waiting.data_digest, waiting.split_digest)
    if waiting.missing_files or not is_same_split:
        return []
    ours, theirs = candidate.choice_figure(policy.choose_by), waiting.choice_figure(policy.choose_by)
    sentence = (
        f"{policy.choice_label} {ours:.4f} against {theirs:.4f} of version {waiting.version}, which waits for "
        "approval: approve that one, or remove its alias in MLflow's page"
    )
    passed = math.isnan(theirs) or ours > theirs + ROUNDING
    return [RuleResult("better_than_candidate", passed, ours - theirs, 0.0, sentence)]


def _check_approval(candidate: CommonFacts, approval: Approval | None) -> RuleResult:
    command = f'`cxr approve {candidate.version} --reason "..."`'
    sentence = approval.sentence() if approval else f"it waits for the approval of another user ({command})"
    user = approval.approved_by if approval else ""
    return RuleResult(APPROVAL, approval is not None, user, "another user than its trainer", sentence)


def _check_against_references(candidate: CommonFacts, policy: CommonPolicy) -> list[RuleResult]:
    """Whether the challenger is so many times as good on validation as the best method that it is judged beside."""
    if not policy.reference_ratio:
        return []
    name, figure = "better_than_references", candidate.choice_figure(policy.choose_by)
    known = {title: candidate.figure(attribute) for attribute, title in candidate.REFERENCES.items()}
    unknown = [title for title, value in known.items() if math.isnan(value)]
    if unknown:
        sentence = (
            f"the {policy.choice_label} of {', '.join(unknown)} is not known; evaluate the model beside all of "
            "them (`cxr evaluate_regions` with classifier)"
        )
        return [RuleResult(name, False, math.nan, policy.reference_ratio, sentence)]
    best = max(known, key=lambda title: known[title])
    demanded = policy.reference_ratio * known[best]
    passed = figure > 0 and figure >= demanded - ROUNDING  # false for NaN
    text = "unknown" if math.isnan(figure) else f"{figure:.4f}"
    sentence = (
        f"{policy.choice_label} {text} against {known[best]:.4f} of the best reference method, {best}: at least "
        f"{policy.reference_ratio:g} times that ({demanded:.4f}) is asked for"
    )
    return [RuleResult(name, passed, figure, demanded, sentence)]


def _check_against_champion(
    candidate: CommonFacts, champion: CommonFacts, comparison: VersionComparison | None, policy: CommonPolicy
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
        *(_check_not_worse(name, compared, result) for name, compared in policy.compared.items()),
    ]


def _check_better_on_validation(
    candidate: CommonFacts, champion: CommonFacts, result: ModelComparison, policy: CommonPolicy
) -> RuleResult:
    ours, theirs = result.validation[next(iter(policy.compared))]
    if policy.choose_by == "stressed_validation":
        ours, theirs = candidate.choice_figure(policy.choose_by), champion.choice_figure(policy.choose_by)
        # Both figures were measured before. Those of two splits come from different images.
        if candidate.split_digest != champion.split_digest or math.isnan(ours - theirs):
            sentence = (
                f"the {policy.choice_label} of champion version {champion.version} is not known on the same split; "
                f"evaluate and register its model on this split, or set {policy.SECTION}.choose_by to validation"
            )
            return RuleResult("better_on_validation", False, math.nan, policy.min_gain, sentence)
    gain = ours - theirs
    better = gain > policy.min_gain + ROUNDING  # false for NaN, and for a tie
    sentence = (
        f"{policy.choice_label} {ours:.4f} against {theirs:.4f} of champion version {champion.version}: "
        f"{gain:+.4f}, where more than {policy.min_gain:+.4f} is asked for"
    )
    return RuleResult("better_on_validation", better, gain, policy.min_gain, sentence)


def _check_not_worse(name: str, compared: ComparedFigure, result: ModelComparison) -> RuleResult:
    difference = result.test[name]
    passed = difference.low >= -compared.margin - ROUNDING  # false for NaN
    sentence = (
        f"test {compared.label} {difference.ours:.4f} against {difference.theirs:.4f}: {difference.difference:+.4f} "
        f"({100 * result.confidence:g} % interval {difference.low:+.4f} to {difference.high:+.4f}), "
        f"where it may lose {compared.margin:.4f} at most"
    )
    return RuleResult(f"{name}_on_test", passed, difference.low, -compared.margin, sentence)

"""Which version may be served: rules over facts, without any registry.

Validation chooses the challenger, and says whether it is better than the champion. The test images can only refuse
it: by floors, and where the challenger is worse than the champion on them by more than chance and a margin. Test
thus never chooses between models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxr.evaluation.comparison import Comparison, Difference

ROUNDING = 1e-9
"""Differences below this are none."""

AUROC, SENSITIVITY = "auroc", "sensitivity"
"""Figures of the comparison on test that the rules look at."""


@dataclass(frozen=True)
class Facts:
    """What the rules look at in a version.

    Attributes:
        model: the model's name in ``params.yaml``.
        version: number in the registry.
        dataset: name of the data set.
        dataset_kind: ``"phantom"`` or ``"patients"``.
        gpu: whether it was trained on a GPU.
        device: name of the device it was trained on.
        evidence_missing: what a proof of training on a GPU lacks, e.g. ``"driver"``.
        data_digest: content version of the images.
        split_protocol: how the images were split.
        split_digest: digest of the assignment image -> split.
        validation_auroc: AUROC on the validation images; NaN if unknown.
        test_auroc: AUROC on the test images; NaN if unknown.
        test_sensitivity: sensitivity on the test images at the model's threshold; NaN if unknown.
        test_calibration_error: calibration error on the test images; NaN if unknown.
        pinned: whether a person has pinned it with a tag.
        absent: files without which it cannot answer and that are gone.
    """

    model: str
    version: str
    dataset: str
    dataset_kind: str
    gpu: bool
    device: str
    evidence_missing: tuple[str, ...]
    data_digest: str
    split_protocol: str
    split_digest: str
    validation_auroc: float
    test_auroc: float
    test_sensitivity: float
    test_calibration_error: float
    pinned: bool = False
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """Limits of the rules: the section ``promotion`` of ``params.yaml``.

    Attributes:
        require_gpu: whether only GPU-trained versions may become champion.
        min_auroc: lowest AUROC on the test images.
        min_sensitivity: lowest sensitivity on the test images at the model's threshold.
        max_calibration_error: highest calibration error on the test images.
        min_gain: how much higher than the champion's the AUROC on validation must be; a tie never suffices.
        margin: how much lower the AUROC on test may be at the lower end of the difference's interval.
        sensitivity_margin: the same for the sensitivity at the specificity.
        specificity: specificity that both models keep when their sensitivities are compared.
        confidence: share of the replicates inside an interval.
        resamples: bootstrap replicates over patients.
        seed: seed of the bootstrap.
    """

    require_gpu: bool = True
    min_auroc: float = 0.9
    min_sensitivity: float = 0.9
    max_calibration_error: float = 0.15
    min_gain: float = 0.0
    margin: float = 0.005
    sensitivity_margin: float = 0.05
    specificity: float = 0.9
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Match:
    """Champion and challenger on the same images.

    Attributes:
        comparison: their figures, challenger first; None if too few images are left.
        images: test images that both are compared on.
        set_aside: test and validation images left out because the champion has learned from their patients.
        afresh: images that the champion was asked about now, because it had not seen them yet.
        reason: why there is no comparison; empty if there is one.
    """

    comparison: Comparison | None
    images: int = 0
    set_aside: int = 0
    afresh: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Rule:
    """One rule and how it went.

    Attributes:
        name: short name.
        passed: whether it was kept.
        figure: what was found.
        limit: what was asked for.
        sentence: both in words.
    """

    name: str
    passed: bool
    figure: float | str | bool
    limit: float | str | bool
    sentence: str


@dataclass(frozen=True)
class Decision:
    """Whether the challenger becomes champion, and why.

    Attributes:
        promote: whether the alias is to be moved.
        candidate: version of the challenger.
        champion: version that is champion after the decision, None if there is none.
        recommended: whether only a person's own choice stands in the way.
        rules: all rules that were looked at, in order; empty when the challenger is champion already.
    """

    promote: bool
    candidate: str
    champion: str | None
    recommended: bool
    rules: tuple[Rule, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Sentences of the rules that were broken."""
        return tuple(rule.sentence for rule in self.rules if not rule.passed)


def choose(candidates: Sequence[Facts]) -> Facts | None:
    """Choose the challenger: the highest AUROC on validation, the first of equals.

    Args:
        candidates: versions judged on the same split.

    Returns:
        The challenger, or None if no candidate has a known AUROC.
    """
    known = [one for one in candidates if not math.isnan(one.validation_auroc)]
    return max(known, key=lambda one: one.validation_auroc, default=None)


def comparable(candidate: Facts, champion: Facts | None) -> bool:
    """Whether two versions are compared on images at all.

    Args:
        candidate: the challenger.
        champion: the version that is champion now, None if there is none.

    Returns:
        False where the rules need no comparison: no other champion, or drawn images on one side only.
    """
    if champion is None or champion.version == candidate.version:
        return False
    return candidate.dataset_kind == champion.dataset_kind


def decide(
    candidate: Facts,
    champion: Facts | None,
    policy: Policy,
    *,
    match: Match | None = None,
    chosen_by_person: bool = False,
) -> Decision:
    """Decide whether a challenger becomes champion; a tie keeps the champion.

    Args:
        candidate: the challenger.
        champion: the version that is champion now, None if there is none.
        policy: the limits.
        match: both on the same images, where they are :func:`comparable`.
        chosen_by_person: whether a person has chosen the champion.

    Returns:
        The decision with every rule.
    """
    if champion is not None and champion.version == candidate.version:
        return Decision(False, candidate.version, champion.version, False, ())
    rules = [
        _whole(candidate),
        _device(candidate, policy),
        _floor("AUROC", candidate.test_auroc, policy.min_auroc),
        _floor("sensitivity", candidate.test_sensitivity, policy.min_sensitivity),
        _ceiling("calibration error", candidate.test_calibration_error, policy.max_calibration_error),
    ]
    if champion is not None:
        rules += _against(candidate, champion, match, policy)
    fit = all(rule.passed for rule in rules)
    free = True
    if champion is not None and (chosen_by_person or champion.pinned):
        how = "pinned" if champion.pinned else "chosen by a person"
        free = False
        sentence = f"a person has chosen version {champion.version} as champion; a run never overrules that"
        if champion.pinned:
            sentence = f"version {champion.version} is pinned as champion; a run never overrules that"
        rules.append(Rule("person", False, how, "not chosen by a person", sentence))
    promote = fit and free
    after = candidate.version if promote else champion.version if champion else None
    return Decision(promote, candidate.version, after, fit and not free, tuple(rules))


def _whole(candidate: Facts) -> Rule:
    passed = not candidate.absent
    sentence = "all its files are in the store" if passed else f"it has lost {', '.join(candidate.absent)}"
    return Rule("files", passed, ", ".join(candidate.absent), "", sentence)


def _device(candidate: Facts, policy: Policy) -> Rule:
    proven = candidate.gpu and not candidate.evidence_missing
    passed = proven or not policy.require_gpu
    sentence = f"trained on {'a GPU' if candidate.gpu else 'a CPU'} ({candidate.device or 'unknown device'})"
    if candidate.gpu and candidate.evidence_missing:
        sentence += f", as it says without {', '.join(candidate.evidence_missing)}"
    if not passed:
        sentence += "; the policy wants proof of a GPU: train on one, or set promotion.require_gpu to false for a trial"
    return Rule("gpu", passed, proven, policy.require_gpu, sentence)


def _floor(name: str, figure: float, limit: float) -> Rule:
    passed = figure >= limit  # false for NaN: an unknown figure passes nothing
    return _limit(name, figure, limit, passed, "reaches" if passed else "is below", "floor")


def _ceiling(name: str, figure: float, limit: float) -> Rule:
    passed = figure <= limit
    return _limit(name, figure, limit, passed, "keeps" if passed else "is above", "ceiling")


def _limit(name: str, figure: float, limit: float, passed: bool, word: str, bound: str) -> Rule:
    unknown = math.isnan(figure)
    found, word = ("unknown", "cannot be held against") if unknown else (f"{figure:.4f}", word)
    sentence = f"test {name} {found} {word} the {bound} of {limit:.4f}"
    return Rule(name.lower().replace(" ", "_"), passed, figure, limit, sentence)


def _against(candidate: Facts, champion: Facts, match: Match | None, policy: Policy) -> list[Rule]:
    if candidate.dataset_kind != champion.dataset_kind:
        kinds = {"phantom": "phantoms", "patients": "patients"}
        ours, theirs = (kinds.get(one.dataset_kind, "unknown images") for one in (candidate, champion))
        passed = candidate.dataset_kind == "patients" and champion.dataset_kind == "phantom"
        word = "may replace" if passed else "never replaces"
        sentence = f"trained on {ours}: it {word} version {champion.version}, trained on {theirs}"
        return [Rule("data", passed, candidate.dataset_kind, champion.dataset_kind, sentence)]
    if match is None or match.comparison is None:
        why = match.reason if match else "they were not put side by side"
        sentence = f"it cannot be compared with champion version {champion.version}: {why}"
        return [Rule("comparable", False, "not comparable", "comparable", sentence)]
    found = match.comparison
    own, other = found.validation[AUROC]
    gain = own - other
    better = gain > policy.min_gain + ROUNDING  # false for NaN, and for a tie
    sentence = (
        f"validation AUROC {own:.4f} against {other:.4f} of champion version {champion.version}: "
        f"{gain:+.4f}, where more than {policy.min_gain:+.4f} is asked for"
    )
    return [
        Rule("better_on_validation", better, gain, policy.min_gain, sentence),
        _not_worse("auroc_on_test", "AUROC", found.test[AUROC], policy.margin, found),
        _not_worse(
            "sensitivity_on_test",
            f"sensitivity at {100 * policy.specificity:g} % specificity",
            found.test[SENSITIVITY],
            policy.sensitivity_margin,
            found,
        ),
    ]


def _not_worse(name: str, words: str, found: Difference, margin: float, comparison: Comparison) -> Rule:
    passed = found.low >= -margin - ROUNDING  # false for NaN
    sentence = (
        f"test {words} {found.ours:.4f} against {found.theirs:.4f}: {found.difference:+.4f} "
        f"({100 * comparison.confidence:g} % interval {found.low:+.4f} to {found.high:+.4f}), "
        f"where it may lose {margin:.4f} at most"
    )
    return Rule(name, passed, found.low, -margin, sentence)

"""Which version may be served: rules over facts, without any registry.

Validation chooses the challenger. The floors are read on the test images, for that one model only: its
threshold was chosen on validation, where the wanted sensitivity is reached by construction. Test thus never
chooses between models; it can only refuse the one that was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

ROUNDING = 1e-9
"""Differences below this are none."""


@dataclass(frozen=True)
class Facts:
    """What the rules look at in a version.

    Attributes:
        model: the model's name in ``params.yaml``.
        version: number in the registry.
        dataset_kind: ``"phantom"`` or ``"patients"``.
        gpu: whether it was trained on a GPU.
        device: name of the device it was trained on.
        data_digest: content version of the images.
        split_protocol: how the images were split.
        split_digest: digest of the assignment image -> split.
        validation_auroc: AUROC on the validation images; NaN if unknown.
        test_auroc: AUROC on the test images; NaN if unknown.
        test_sensitivity: sensitivity on the test images at the model's threshold; NaN if unknown.
        pinned: whether a person has pinned it with a tag.
    """

    model: str
    version: str
    dataset_kind: str
    gpu: bool
    device: str
    data_digest: str
    split_protocol: str
    split_digest: str
    validation_auroc: float
    test_auroc: float
    test_sensitivity: float
    pinned: bool = False


@dataclass(frozen=True)
class Policy:
    """Limits of the rules.

    Attributes:
        require_gpu: whether only GPU-trained versions may become champion.
        min_auroc: lowest AUROC on the test images.
        min_sensitivity: lowest sensitivity on the test images at the model's threshold.
        margin: how much higher than the champion's the AUROC on validation must be.
    """

    require_gpu: bool = True
    min_auroc: float = 0.9
    min_sensitivity: float = 0.9
    margin: float = 0.0


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


def decide(candidate: Facts, champion: Facts | None, policy: Policy, *, chosen_by_person: bool = False) -> Decision:
    """Decide whether a challenger becomes champion; a tie keeps the champion.

    Args:
        candidate: the challenger.
        champion: the version that is champion now, None if there is none.
        policy: the limits.
        chosen_by_person: whether a person has set the champion's alias by hand.

    Returns:
        The decision with every rule.
    """
    if champion is not None and champion.version == candidate.version:
        return Decision(False, candidate.version, champion.version, False, ())
    rules = [_device(candidate, policy)]
    rules += [
        _floor("AUROC", candidate.test_auroc, policy.min_auroc),
        _floor("sensitivity", candidate.test_sensitivity, policy.min_sensitivity),
    ]
    if champion is not None:
        rules += _against(candidate, champion, policy)
    fit = all(rule.passed for rule in rules)
    free = True
    if champion is not None and (chosen_by_person or champion.pinned):
        how = "pinned" if champion.pinned else "set by hand"
        free = False
        rules.append(
            Rule(
                "person",
                False,
                how,
                "not chosen by a person",
                f"a person has made version {champion.version} champion ({how}); a run never overrules that",
            )
        )
    promote = fit and free
    after = candidate.version if promote else champion.version if champion else None
    return Decision(promote, candidate.version, after, fit and not free, tuple(rules))


def _device(candidate: Facts, policy: Policy) -> Rule:
    passed = candidate.gpu or not policy.require_gpu
    sentence = f"trained on {'a GPU' if candidate.gpu else 'a CPU'} ({candidate.device or 'unknown device'})"
    if not passed:
        sentence += "; the policy wants a GPU: train on one, or set register.require_gpu to false for a trial"
    return Rule("gpu", passed, candidate.gpu, policy.require_gpu, sentence)


def _floor(name: str, figure: float, limit: float) -> Rule:
    passed = figure >= limit  # false for NaN: an unknown figure passes nothing
    word = "reaches" if passed else "is below"
    found = "unknown" if math.isnan(figure) else f"{figure:.4f}"
    if math.isnan(figure):
        word = "cannot be held against"
    return Rule(name.lower(), passed, figure, limit, f"test {name} {found} {word} the floor of {limit:.4f}")


def _against(candidate: Facts, champion: Facts, policy: Policy) -> list[Rule]:
    kinds = {"phantom": "phantoms", "patients": "patients"}
    theirs = kinds.get(champion.dataset_kind, "unknown images")
    ours = kinds.get(candidate.dataset_kind, "unknown images")
    if candidate.dataset_kind != champion.dataset_kind:
        passed = candidate.dataset_kind == "patients" and champion.dataset_kind == "phantom"
        word = "may replace" if passed else "never replaces"
        sentence = f"trained on {ours}: it {word} version {champion.version}, trained on {theirs}"
        return [Rule("data", passed, candidate.dataset_kind, champion.dataset_kind, sentence)]
    same = (
        bool(candidate.data_digest)
        and candidate.data_digest == champion.data_digest
        and candidate.split_digest == champion.split_digest
    )
    if not same:
        sentence = (
            f"its images or their split ({candidate.split_protocol}) are not those of champion version "
            f"{champion.version} ({champion.split_protocol}): the two cannot be compared; "
            "evaluate both on one split, or set the alias by hand"
        )
        return [Rule("comparable", False, candidate.split_digest, champion.split_digest, sentence)]
    gain = candidate.validation_auroc - champion.validation_auroc
    passed = gain > policy.margin + ROUNDING  # false for NaN, and for a tie
    figures = f"{candidate.validation_auroc:.4f} against {champion.validation_auroc:.4f}"
    sentence = (
        f"validation AUROC {figures} of champion version {champion.version}: "
        f"{gain:+.4f}, where more than {policy.margin:+.4f} is asked for"
    )
    return [Rule("better", passed, gain, policy.margin, sentence)]


@dataclass(frozen=True)
class Registration:
    """What a register run did.

    Attributes:
        registered_name: name of the registered model.
        tracking_uri: address of the store.
        candidates: facts of this run's models, best on validation first.
        new: versions that this run has added; the others were there.
        challenger: version with the alias after the run, None if there is none.
        challenger_by_person: whether a person has set that alias by hand, so that it was left alone.
        decision: about the champion; None if no model could be a challenger.
    """

    registered_name: str
    tracking_uri: str
    candidates: tuple[Facts, ...]
    new: tuple[str, ...]
    challenger: str | None
    challenger_by_person: bool
    decision: Decision | None
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Make it storable.

        Returns:
            Field name to value, for JSON.
        """
        return asdict(self)

    def headline(self) -> str:
        """Say in one sentence who is challenger and champion.

        Returns:
            The sentence.
        """
        challenger = f"version {self.challenger}" if self.challenger else "nobody"
        if self.challenger_by_person:
            challenger += " (set by hand)"
        decision = self.decision
        champion = f"version {decision.champion}" if decision and decision.champion else "nobody"
        sentence = f"{self.registered_name}: challenger is {challenger}, champion is {champion}"
        if decision is None:
            return sentence
        if decision.promote:
            return f"{sentence} (promoted by this run)"
        if not decision.rules:
            return f"{sentence} (as before)"
        return f"{sentence}; version {decision.candidate} was not promoted: {'; '.join(decision.reasons)}"

    def to_markdown(self) -> str:
        """Write the run's page.

        Returns:
            Markdown: the sentence, the rules and the models.
        """
        lines = [f"# Registration of {self.registered_name}", "", f"{self.headline()}.", ""]
        if any(one.dataset_kind == "phantom" for one in self.candidates):
            lines += ["> Trained on phantoms: drawn images, not patients. Never for use on people.", ""]
        if self.decision is not None and self.decision.rules:
            lines += [
                f"## May version {self.decision.candidate} be champion?",
                "",
                "| rule | | why |",
                "|---|---|---|",
            ]
            lines += [
                f"| {rule.name} | {'kept' if rule.passed else '**broken**'} | {rule.sentence} |"
                for rule in self.decision.rules
            ]
            if self.decision.recommended:
                lines += [
                    "",
                    "Only a person's own choice stands in the way: the version is tagged `recommended`.",
                ]
            lines.append("")
        lines += ["## Models of this run, best on validation first", ""]
        lines += [
            "| model | version | validation AUROC | test AUROC | test sensitivity | device |",
            "|---|---|---|---|---|---|",
        ]
        for one in self.candidates:
            added = " (new)" if one.version in self.new else ""
            figures = (one.validation_auroc, one.test_auroc, one.test_sensitivity)
            cells = " | ".join("unknown" if math.isnan(figure) else f"{figure:.4f}" for figure in figures)
            lines.append(f"| {one.model} | {one.version}{added} | {cells} | {one.device or 'unknown'} |")
        lines += [f"\n{note}" for note in self.notes]
        return "\n".join(lines) + "\n"

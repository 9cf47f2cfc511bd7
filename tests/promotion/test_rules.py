from __future__ import annotations

import math
from dataclasses import replace

import pytest

from cxr.evaluation.comparison import MetricDifference, ModelComparison
from cxr.promotion.comparison import VersionComparison, are_comparable
from cxr.promotion.facts import VersionFacts
from cxr.promotion.policy import AUROC, SENSITIVITY
from cxr.promotion.rules import choose_challenger, decide
from support.promotion_policies import promotion_policy

CHAMPION = VersionFacts(
    model="three_block",
    version="1",
    dataset="kermany",
    dataset_kind="patients",
    gpu=True,
    device="test GPU",
    evidence_missing=(),
    data_digest="data",
    split_protocol="70/15/15 by patient",
    split_digest="split",
    validation_auroc=0.95,
    test_auroc=0.95,
    test_sensitivity=0.96,
    test_calibration_error=0.03,
)
CHALLENGER = replace(CHAMPION, version="2", validation_auroc=0.97)
POLICY = promotion_policy(min_gain=0.01, margin=0.005, sensitivity_margin=0.05)


def difference(change: float = 0.0, low: float = -0.004, high: float = 0.01) -> MetricDifference:
    return MetricDifference(0.95 + change, 0.95, change, low, high, 0.5, False)


def comparison(
    gain: float = 0.02, *, auroc: MetricDifference | None = None, sensitivity: MetricDifference | None = None
) -> VersionComparison:
    test = {AUROC: auroc or difference(), SENSITIVITY: sensitivity or difference()}
    result = ModelComparison("two", "one", {AUROC: (0.95 + gain, 0.95)}, test, 600, 400, 2000, 0, 0, 0.95)
    return VersionComparison(result, 600)


def broken(
    candidate: VersionFacts = CHALLENGER, champion: VersionFacts | None = CHAMPION, **options: object
) -> list[str]:
    options = {"comparison": comparison(), **options}
    policy = options.pop("policy", POLICY)
    decision = decide(candidate, champion, policy, **options)
    assert decision.promote == (not decision.reasons)
    return [rule.name for rule in decision.rules if not rule.passed]


def test_a_better_challenger_that_is_not_worse_on_test_becomes_champion() -> None:
    decision = decide(CHALLENGER, CHAMPION, POLICY, comparison=comparison())
    assert decision.promote and decision.champion == "2"
    assert [rule.name for rule in decision.rules] == [
        "files",
        "gpu",
        "auroc",
        "sensitivity",
        "calibration_error",
        "better_on_validation",
        "auroc_on_test",
        "sensitivity_on_test",
    ]


def test_the_first_champion_needs_files_device_and_limits_only() -> None:
    assert broken(CHAMPION, None) == []
    assert decide(replace(CHAMPION, gpu=False), None, POLICY).champion is None


@pytest.mark.parametrize(
    ("figure", "floor", "expected"),
    [
        (0.79, None, []),
        (0.79, 0.8, ["worst_slice_sensitivity"]),
        (0.81, 0.8, []),
        (math.nan, 0.0, ["worst_slice_sensitivity"]),
    ],
)
def test_a_floor_on_slices_holds_where_one_is_set(figure: float, floor: float | None, expected: list[str]) -> None:
    policy = replace(POLICY, min_slice_sensitivity=floor)
    challenger = replace(CHALLENGER, test_worst_slice_sensitivity=figure, test_worst_slice="sex: F")
    assert broken(challenger, policy=policy) == expected
    sentences = " ".join(rule.sentence for rule in decide(challenger, None, policy).rules)
    assert ("worst slice (sex: F)" in sentences) == (floor is not None)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gpu": False}, "gpu"),
        ({"evidence_missing": ("driver",)}, "gpu"),
        ({"missing_files": ("model.keras",)}, "files"),
        ({"test_auroc": 0.89}, "auroc"),
        ({"test_auroc": math.nan}, "auroc"),
        ({"test_sensitivity": 0.89}, "sensitivity"),
        ({"test_calibration_error": 0.151}, "calibration_error"),
        ({"test_calibration_error": math.nan}, "calibration_error"),
        ({"dataset_kind": "phantom"}, "data"),
    ],
)
def test_one_broken_rule_about_the_challenger_keeps_the_champion(change: dict[str, object], rule: str) -> None:
    candidate = replace(CHALLENGER, **change)
    assert broken(candidate) == [rule]
    assert decide(candidate, CHAMPION, POLICY, comparison=comparison()).champion == "1"


@pytest.mark.parametrize(
    ("versions_compared", "rule"),
    [
        (comparison(gain=0.0), "better_on_validation"),
        (comparison(gain=0.01), "better_on_validation"),
        (comparison(gain=math.nan), "better_on_validation"),
        (comparison(auroc=difference(low=-0.006)), "auroc_on_test"),
        (comparison(auroc=difference(low=math.nan)), "auroc_on_test"),
        (comparison(sensitivity=difference(low=-0.051)), "sensitivity_on_test"),
        (VersionComparison(None, reason="its images are unknown"), "comparable"),
        (None, "comparable"),
    ],
)
def test_one_broken_rule_about_both_keeps_the_champion(versions_compared: VersionComparison | None, rule: str) -> None:
    assert broken(comparison=versions_compared) == [rule]


def test_a_tie_keeps_the_champion_even_without_a_minimum_gain() -> None:
    assert broken(comparison=comparison(gain=0.0), policy=promotion_policy()) == ["better_on_validation"]
    assert broken(comparison=comparison(gain=1e-6), policy=promotion_policy()) == []


def test_a_loss_on_test_within_the_margin_is_accepted() -> None:
    assert broken(comparison=comparison(auroc=difference(-0.001, low=-0.005))) == []


def test_a_local_trial_may_waive_the_gpu() -> None:
    assert broken(replace(CHALLENGER, gpu=False), policy=replace(POLICY, require_gpu=False)) == []


def test_a_model_of_patients_replaces_one_of_phantoms_without_comparison() -> None:
    phantom = replace(CHAMPION, dataset_kind="phantom", validation_auroc=1.0)
    assert not are_comparable(CHALLENGER, phantom)
    assert broken(CHALLENGER, phantom, comparison=None) == []
    assert broken(replace(CHALLENGER, dataset_kind="phantom"), replace(phantom, dataset_kind="")) == ["data"]


def test_a_choice_by_a_person_stays_and_the_better_version_is_recommended() -> None:
    by_hand = decide(CHALLENGER, CHAMPION, POLICY, comparison=comparison(), chosen_by_person=True)
    pinned = decide(CHALLENGER, replace(CHAMPION, pinned=True), POLICY, comparison=comparison())
    for decision, sentence in ((by_hand, "a person has chosen version 1"), (pinned, "version 1 is pinned")):
        assert not decision.promote and decision.champion == "1" and decision.recommended
        assert sentence in decision.reasons[0]
    worse = decide(replace(CHALLENGER, gpu=False), CHAMPION, POLICY, comparison=comparison(), chosen_by_person=True)
    assert not worse.recommended


def test_the_champion_is_not_compared_with_itself() -> None:
    assert (
        not are_comparable(CHAMPION, CHAMPION)
        and not are_comparable(CHAMPION, None)
        and are_comparable(CHALLENGER, CHAMPION)
    )
    decision = decide(CHAMPION, CHAMPION, POLICY)
    assert (decision.promote, decision.champion, decision.rules) == (False, "1", ())


def test_validation_alone_chooses_the_challenger() -> None:
    best_on_test = replace(CHAMPION, version="3", validation_auroc=0.9, test_auroc=1.0)
    unknown = replace(CHAMPION, version="4", validation_auroc=math.nan)
    assert choose_challenger([best_on_test, unknown, CHALLENGER], "validation") == CHALLENGER
    assert choose_challenger([unknown], "validation") is None
    assert choose_challenger([CHAMPION, replace(CHAMPION, version="9")], "validation") == CHAMPION


def test_the_last_bit_of_a_figure_decides_nothing() -> None:
    """Processors and libraries round differently; equal figures are equal, and a limit that is met is met."""
    reordered_sum = replace(CHALLENGER, version="3", validation_auroc=math.nextafter(CHALLENGER.validation_auroc, 1))
    assert choose_challenger([CHALLENGER, reordered_sum], "validation") == CHALLENGER
    on_the_limits = replace(
        CHALLENGER,
        test_auroc=math.nextafter(POLICY.min_auroc, 0),
        test_calibration_error=math.nextafter(POLICY.max_calibration_error, 1),
    )
    assert broken(on_the_limits) == []


def test_the_stressed_validation_chooses_the_challenger_if_the_policy_says_so() -> None:
    robust = replace(CHAMPION, version="3", validation_stress_auroc=0.93)
    fragile = replace(CHALLENGER, validation_stress_auroc=0.90)
    assert choose_challenger([robust, fragile], "validation") == fragile
    assert choose_challenger([robust, fragile, CHALLENGER], "stressed_validation") == robust
    assert choose_challenger([CHALLENGER], "stressed_validation") is None


@pytest.mark.parametrize(("ours", "theirs", "gain", "rules"), [
    (0.93, 0.90, -0.02, []),
    (0.90, 0.93, 0.02, ["better_on_validation"]),
    (0.90, 0.90, 0.02, ["better_on_validation"]),
    (math.nan, 0.90, 0.02, ["better_on_validation"]),
    (0.93, math.nan, 0.02, ["better_on_validation"]),
])  # fmt: skip
def test_a_challenger_must_beat_the_champion_in_what_chose_it(
    ours: float, theirs: float, gain: float, rules: list[str]
) -> None:
    candidate = replace(CHALLENGER, validation_stress_auroc=ours)
    champion = replace(CHAMPION, validation_stress_auroc=theirs)
    policy = replace(POLICY, choose_by="stressed_validation")
    assert broken(candidate, champion, policy=policy, comparison=comparison(gain)) == rules


def test_stressed_figures_of_two_splits_are_never_compared() -> None:
    candidate = replace(CHALLENGER, validation_stress_auroc=0.99)
    champion = replace(CHAMPION, validation_stress_auroc=0.90, split_digest="another")
    policy = replace(POLICY, choose_by="stressed_validation")
    (reason,) = decide(candidate, champion, policy, comparison=comparison()).reasons
    assert "is not known on the same split" in reason and "set promotion.choose_by to validation" in reason
    assert broken(candidate, champion) == []


def test_sentences_name_figure_and_limit() -> None:
    decision = decide(
        replace(CHALLENGER, gpu=False, device="some processor", test_sensitivity=math.nan),
        CHAMPION,
        POLICY,
        comparison=comparison(gain=0.001, auroc=difference(-0.02, low=-0.03)),
    )
    text = " | ".join(decision.reasons)
    assert "trained on a CPU (some processor); the policy wants proof of a GPU" in text
    mixed = decide(replace(CHALLENGER, gpu=False, device="a GPU + a processor"), None, POLICY)
    assert "not trained on GPUs alone (a GPU + a processor); the policy wants" in " | ".join(mixed.reasons)
    assert "test sensitivity unknown cannot be held against the floor of 0.9000" in text
    assert "validation AUROC 0.9510 against 0.9500 of champion version 1: +0.0010" in text
    assert "-0.0200 (95 % interval -0.0300 to +0.0100), where it may lose 0.0050 at most" in text

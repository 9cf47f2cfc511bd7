from __future__ import annotations

import math
from dataclasses import replace

import pytest

from cxr.evaluation.comparison import MetricDifference, ModelComparison
from cxr.promotion.comparison import VersionComparison, compare_versions
from cxr.promotion.facts import DetectorFacts
from cxr.promotion.policy import AVERAGE_PRECISION, FigureLimit
from cxr.promotion.rules import choose_challenger, decide
from support.detector_folders import region_policy

POLICY = region_policy(min_gain=0.01, margin=0.02)
CHAMPION = DetectorFacts(
    model="retinanet",
    version="1",
    dataset="rsna",
    dataset_kind="patients",
    gpu=True,
    device="test GPU",
    evidence_missing=(),
    data_digest="data",
    split_protocol="grouped",
    split_digest="split",
    validation_mean_average_precision=0.30,
    validation_grad_cam=0.12,
    validation_prior=0.05,
    validation_prior_with_classifier=0.10,
    test_mean_average_precision=0.28,
    test_sensitivity=0.70,
    test_auroc=0.90,
)
CHALLENGER = replace(CHAMPION, version="2", validation_mean_average_precision=0.35)


def comparison(gain: float = 0.05, low: float = -0.01) -> VersionComparison:
    test = {AVERAGE_PRECISION: MetricDifference(0.3, 0.28, 0.02, low, 0.05, 0.5, False)}
    validation = {AVERAGE_PRECISION: (0.3 + gain, 0.3)}
    return VersionComparison(ModelComparison("two", "one", validation, test, 600, 400, 2000, 0, 0, 0.95), 600)


def broken(candidate: DetectorFacts = CHALLENGER, **options: object) -> list[str]:
    options = {"comparison": comparison(), "policy": POLICY, "champion": CHAMPION, **options}
    decision = decide(candidate, options.pop("champion"), options.pop("policy"), **options)
    assert decision.promote == (not decision.reasons)
    return [rule.name for rule in decision.rules if not rule.passed]


def test_a_better_detector_that_is_not_worse_on_test_becomes_champion() -> None:
    decision = decide(CHALLENGER, CHAMPION, POLICY, comparison=comparison())
    assert decision.promote and decision.champion == "2"
    assert [rule.name for rule in decision.rules] == [
        "files",
        "gpu",
        "mean_average_precision",
        "sensitivity",
        "better_than_references",
        "better_on_validation",
        "mean_average_precision_on_test",
    ]
    assert broken(champion=None) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gpu": False}, "gpu"),
        ({"test_mean_average_precision": 0.09}, "mean_average_precision"),
        ({"test_mean_average_precision": math.nan}, "mean_average_precision"),
        ({"test_sensitivity": 0.49}, "sensitivity"),
        ({"test_sensitivity": math.nan}, "sensitivity"),
        ({"validation_grad_cam": 0.176}, "better_than_references"),
        ({"validation_prior": 0.176}, "better_than_references"),
        ({"validation_prior_with_classifier": 0.176}, "better_than_references"),
        ({"validation_grad_cam": math.nan}, "better_than_references"),
        ({"missing_files": ("model.keras",)}, "files"),
        ({"dataset_kind": "phantom"}, "data"),
    ],
)
def test_one_broken_rule_about_the_detector_keeps_the_champion(change: dict[str, object], rule: str) -> None:
    assert broken(replace(CHALLENGER, **change)) == [rule]


@pytest.mark.parametrize(
    ("versions_compared", "rule"),
    [
        (comparison(gain=0.0), "better_on_validation"),
        (comparison(gain=0.01), "better_on_validation"),
        (comparison(low=-0.021), "mean_average_precision_on_test"),
        (comparison(low=math.nan), "mean_average_precision_on_test"),
        (None, "comparable"),
    ],
)
def test_one_broken_rule_about_both_keeps_the_champion(versions_compared: VersionComparison | None, rule: str) -> None:
    assert broken(comparison=versions_compared) == [rule]


def test_exactly_the_demanded_ratio_is_enough_and_nothing_is_never_better_than_nothing() -> None:
    exactly = replace(CHALLENGER, validation_grad_cam=0.175)
    assert broken(exactly) == []
    without_boxes = dict.fromkeys(DetectorFacts.REFERENCES, 0.0)
    assert broken(replace(CHALLENGER, **without_boxes)) == []
    assert broken(replace(CHALLENGER, validation_mean_average_precision=0.0, **without_boxes)) == [
        "better_than_references"
    ]


def test_a_local_trial_may_leave_out_the_reference_methods() -> None:
    unknown = dict.fromkeys(DetectorFacts.REFERENCES, math.nan)
    assert broken(replace(CHALLENGER, **unknown), policy=replace(POLICY, min_ratio_to_references=0.0)) == []


def test_sentences_name_the_best_reference_method_and_what_is_unknown() -> None:
    poor = replace(CHALLENGER, gpu=False, device="a processor", validation_mean_average_precision=0.2)
    text = " | ".join(decide(poor, None, POLICY).reasons)
    assert "mean average precision 0.2000 against 0.1200 of the best reference method, Grad-CAM boxes" in text
    assert "at least 2 times that (0.2400) is asked for" in text
    assert "set promotion_regions.require_gpu to false" in text
    unknown = replace(CHALLENGER, validation_grad_cam=math.nan, test_sensitivity=math.nan)
    text = " | ".join(decide(unknown, None, POLICY).reasons)
    assert "the validation mean average precision of Grad-CAM boxes is not known" in text
    assert "test sensitivity at 0.5 false positives per image unknown cannot be held against the floor of 0.5" in text


def test_validation_alone_chooses_the_challenger() -> None:
    best_on_test = replace(CHAMPION, version="3", test_mean_average_precision=0.9)
    unknown = replace(CHAMPION, version="4", validation_mean_average_precision=math.nan)
    assert choose_challenger([best_on_test, unknown, CHALLENGER], POLICY.choose_by) == CHALLENGER
    assert choose_challenger([CHALLENGER], "stressed_validation") is None


def test_the_facts_are_read_from_the_tags_of_a_version() -> None:
    tags = {
        "model": "retinanet", "gpu": "yes", "device": "test GPU", "framework": "jax", "driver": "1",
        "train_seconds": "9", "validation_mean_average_precision": "0.3", "test_sensitivity_at_0.5_fp": "0.7",
        "validation_mean_average_precision_grad_cam": "0.1", "test_sensitivity_at_1_fp": "0.9",
    }  # fmt: skip
    facts = DetectorFacts.from_tags("7", tags, ())
    assert (facts.version, facts.validation_grad_cam, facts.test_sensitivity) == ("7", 0.1, 0.7)
    assert math.isnan(facts.validation_prior) and facts.gpu and facts.evidence_missing == ()


@pytest.mark.parametrize("change", [{"split_digest": "another"}, {"data_digest": "another"}])
def test_detectors_of_two_splits_are_never_compared(change: dict[str, str]) -> None:
    import pandas as pd

    table = pd.DataFrame({"path": ["a"]})

    def fetch(folder: object) -> object:
        raise AssertionError("a detector predicts nothing for a comparison")

    result = compare_versions(
        replace(CHALLENGER, **change), CHAMPION, POLICY, candidate_images=table, champion_images=table,
        fetch_champion=fetch, raw=None,
    )  # fmt: skip
    assert result.result is None and "on split " in result.reason


def test_each_limit_is_a_figure_of_the_facts() -> None:
    for limit in POLICY.limits:
        assert isinstance(limit, FigureLimit) and limit.figure in POLICY.FACTS.HEADINGS
    assert set(DetectorFacts.REFERENCES) < set(DetectorFacts.HEADINGS)

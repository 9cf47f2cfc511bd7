"""The threshold is the best one by its rule, lies between scores and is chosen the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.errors import DataError, ParameterError
from cxr.evaluation.metrics import confusion, decision_metrics
from cxr.evaluation.operating_point import candidate_thresholds, choose_operating_point

LABELS = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1])
SCORES = np.array([0.05, 0.1, 0.2, 0.3, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9])


def test_the_highest_specificity_at_the_wanted_sensitivity() -> None:
    all_found = choose_operating_point(LABELS, SCORES, rule="sensitivity", target=0.95)
    assert all_found.threshold == pytest.approx(0.325)
    assert (all_found.sensitivity, all_found.specificity) == (1.0, 0.8)
    four_of_five = choose_operating_point(LABELS, SCORES, rule="sensitivity", target=0.8)
    assert four_of_five.threshold == pytest.approx(0.55)
    assert (four_of_five.sensitivity, four_of_five.specificity) == (0.8, 1.0)


def test_the_highest_sensitivity_at_the_wanted_specificity() -> None:
    assert choose_operating_point(LABELS, SCORES, rule="specificity", target=0.8).threshold == pytest.approx(0.325)
    assert choose_operating_point(LABELS, SCORES, rule="specificity", target=0.81).threshold == pytest.approx(0.55)


def test_of_equal_thresholds_the_lowest_wins() -> None:
    # 0.325 and 0.55 reach the same sum of sensitivity and specificity: the first misses no patient.
    assert choose_operating_point(LABELS, SCORES, rule="youden", target=0.95).threshold == pytest.approx(0.325)
    assert choose_operating_point(LABELS, SCORES, rule="accuracy", target=0.95).threshold == pytest.approx(0.325)


def test_f1_rule_and_fixed_rule() -> None:
    assert choose_operating_point(LABELS, SCORES, rule="f1", target=0.95).f1 == pytest.approx(10 / 11)
    fixed = choose_operating_point(LABELS, SCORES, rule="fixed", target=0.6)
    assert (fixed.threshold, fixed.sensitivity, fixed.target) == (0.6, 0.8, 0.6)


@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=40).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    ),
    rule=st.sampled_from(["sensitivity", "specificity", "youden", "f1", "accuracy"]),
    goal=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_no_other_threshold_is_better(rows: list[tuple[bool, int]], rule: str, goal: float) -> None:
    labels = np.array([int(label) for label, _ in rows])
    scores = np.array([score for _, score in rows]) / 10
    point = choose_operating_point(labels, scores, rule=rule, target=goal)  # type: ignore[arg-type]
    achievable = [
        {name: float(value) for name, value in decision_metrics(confusion(labels, scores, float(threshold))).items()}
        for threshold in np.linspace(0, 1, 41)
    ]
    achieved = decision_metrics(confusion(labels, scores, point.threshold))
    assert float(achieved["sensitivity"]) == point.sensitivity
    assert float(achieved["specificity"]) == point.specificity
    assert 0 <= point.threshold <= 1
    if rule == "sensitivity":
        assert point.sensitivity >= goal
        assert (
            point.specificity
            >= max(metrics["specificity"] for metrics in achievable if metrics["sensitivity"] >= goal) - 1e-9
        )
    elif rule == "specificity":
        sensitivities = [metrics["sensitivity"] for metrics in achievable if metrics["specificity"] >= goal]
        if sensitivities:
            assert point.specificity >= goal
            assert point.sensitivity >= max(sensitivities) - 1e-9
        else:
            assert point.specificity >= max(metrics["specificity"] for metrics in achievable) - 1e-9
    elif rule == "youden":
        best = max(metrics["sensitivity"] + metrics["specificity"] for metrics in achievable)
        assert point.sensitivity + point.specificity >= best - 1e-9
    else:
        assert float(achieved[rule]) >= np.nanmax([metrics[rule] for metrics in achievable]) - 1e-9


def test_a_candidate_separates_even_adjacent_floats() -> None:
    lower = 0.5
    upper = float(np.nextafter(lower, 1))
    middle = candidate_thresholds(np.array([lower, upper]))[1]
    assert (lower >= middle, upper >= middle) == (False, True)


def test_equal_scores_give_one_decision_for_all_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    point = choose_operating_point([0, 1, 1], [0.4, 0.4, 0.4], rule="sensitivity", target=0.95)
    assert (point.sensitivity, point.specificity) == (1.0, 0.0)
    assert point.threshold < 0.4
    assert "all validation images the same" in caplog.text


def test_a_specificity_out_of_reach_gives_the_highest_possible(caplog: pytest.LogCaptureFixture) -> None:
    # A normal image with probability 1 is called pneumonia at every threshold.
    point = choose_operating_point([0, 0, 1], [1.0, 0.2, 0.6], rule="specificity", target=0.9)
    assert point.specificity == 0.5
    assert point.sensitivity == 1.0
    assert "no threshold reaches" in caplog.text


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="both classes"):
        choose_operating_point([1, 1], [0.2, 0.3], rule="sensitivity", target=0.95)
    with pytest.raises(ParameterError, match=r"target=1\.2"):
        choose_operating_point([0, 1], [0.2, 0.3], rule="sensitivity", target=1.2)

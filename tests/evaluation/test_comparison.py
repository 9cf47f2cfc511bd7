"""Two models are compared on the same patients, and the sentence says what the figures say."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from cxr.errors import DataError
from cxr.evaluation.bootstrap import bootstrap
from cxr.evaluation.comparison import ModelComparison, compare_models
from cxr.evaluation.metrics import auroc
from support.simulated_predictions import evaluated, predictions

NAMES = ("first", "second")


def calibrated_predictions(seed: int = 0) -> pd.DataFrame:
    return evaluated(predictions(seed=seed), resamples=100).predictions


def blurred(table: pd.DataFrame, noise: float, seed: int = 1) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    scores = logit(table["probability"]) + noise * generator.standard_normal(len(table))
    return table.assign(probability=expit(scores))


def compare(ours: pd.DataFrame, theirs: pd.DataFrame, resamples: int) -> ModelComparison:
    return compare_models(ours, theirs, NAMES, confidence=0.95, resamples=resamples, seed=0)


def test_a_model_is_no_better_than_itself() -> None:
    table = calibrated_predictions()
    comparison = compare(table, table, 200)
    for difference in comparison.test.values():
        assert (difference.difference, difference.low, difference.high) == (0, 0, 0)
        assert difference.p_value == 1
        assert not difference.significant
    assert (
        comparison.sentence() == "On 200 test images first has the same AUROC as second and the same log loss as second"
    )


def test_a_clear_difference_is_significant_and_says_which_way() -> None:
    table = calibrated_predictions()
    comparison = compare(table, blurred(table, 6.0), 500)
    better, less = comparison.test["auroc"], comparison.test["log_loss"]
    assert better.significant and better.p_value < 0.01
    assert 0 < better.low < better.difference < better.high
    assert less.low < less.difference < less.high < 0
    assert better.difference == pytest.approx(better.ours - better.theirs, abs=1e-5)
    assert "first has a higher AUROC than second" in comparison.sentence()
    assert "a lower log loss than second" in comparison.sentence()
    assert f"p = {better.p_value:.2g}: significant" in comparison.sentence()


def test_the_other_way_round_only_the_sign_changes() -> None:
    table = calibrated_predictions()
    blurred_table = blurred(table, 2.0)
    there, back = compare(table, blurred_table, 300), compare(blurred_table, table, 300)
    for name in ("auroc", "log_loss"):
        forward, reverse = there.test[name], back.test[name]
        expected = (-reverse.difference, -reverse.high, -reverse.low)
        assert (forward.difference, forward.low, forward.high) == pytest.approx(expected)
        assert forward.p_value == reverse.p_value


def test_drawing_the_same_patients_for_both_narrows_the_interval() -> None:
    table = calibrated_predictions()
    blurred_table = blurred(table, 1.0)
    paired = compare(table, blurred_table, 500).test["auroc"]
    test = table[table["split"] == "test"]
    labels = (test["label"] == "PNEUMONIA").to_numpy()
    alone = bootstrap(
        lambda weights: {"auroc": auroc(labels, test["probability"], weights)},
        labels,
        test["group"],
        resamples=500,
        seed=0,
    ).intervals["auroc"]
    assert paired.high - paired.low < alone.high - alone.low


def test_validation_is_reported_without_a_test_of_significance() -> None:
    comparison = compare(calibrated_predictions(), blurred(calibrated_predictions(), 2.0), 100).to_dict()
    assert set(comparison["validation"]["auroc"]) == {"ours", "theirs", "difference"}
    assert comparison["test"]["auroc"]["p_value"] > 0
    assert json.loads(json.dumps(comparison))["bootstrap"]["resamples"] == 100


def test_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="first with 400 and second with 399 images"):
        compare(calibrated_predictions(), calibrated_predictions().iloc[1:], 100)

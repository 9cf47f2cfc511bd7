"""Two models are compared on the same patients, and the sentence says what the figures say."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from cxr.errors import DataError
from cxr.evaluation.bootstrap import bootstrap
from cxr.evaluation.comparison import compare
from cxr.evaluation.evaluate import evaluate
from cxr.evaluation.metrics import auroc
from support.judged_models import predictions

NAMES = ("first", "second")


def judged(seed: int = 0) -> pd.DataFrame:
    return evaluate(predictions(seed=seed), resamples=100).predictions


def blurred(table: pd.DataFrame, noise: float, seed: int = 1) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    scores = logit(table["probability"]) + noise * generator.standard_normal(len(table))
    return table.assign(probability=expit(scores))


def test_a_model_is_no_better_than_itself() -> None:
    table = judged()
    found = compare(table, table, NAMES, resamples=200)
    for difference in found.test.values():
        assert (difference.difference, difference.low, difference.high) == (0, 0, 0)
        assert difference.p_value == 1
        assert not difference.significant
    assert found.sentence() == "On 200 test images first has the same AUROC as second and the same log loss as second"


def test_a_clear_difference_is_significant_and_says_which_way() -> None:
    table = judged()
    found = compare(table, blurred(table, 6.0), NAMES, resamples=500)
    better, less = found.test["auroc"], found.test["log_loss"]
    assert better.significant and better.p_value < 0.01
    assert 0 < better.low < better.difference < better.high
    assert less.low < less.difference < less.high < 0
    assert better.difference == pytest.approx(better.ours - better.theirs, abs=1e-5)
    assert "first has a higher AUROC than second" in found.sentence()
    assert "a lower log loss than second" in found.sentence()
    assert f"p = {better.p_value:.2g}: significant" in found.sentence()


def test_the_other_way_round_only_the_sign_changes() -> None:
    table = judged()
    other = blurred(table, 2.0)
    there, back = compare(table, other, NAMES, resamples=300), compare(other, table, NAMES, resamples=300)
    for name in ("auroc", "log_loss"):
        one, two = there.test[name], back.test[name]
        assert (one.difference, one.low, one.high) == pytest.approx((-two.difference, -two.high, -two.low))
        assert one.p_value == two.p_value


def test_drawing_the_same_patients_for_both_narrows_the_interval() -> None:
    table = judged()
    other = blurred(table, 1.0)
    paired = compare(table, other, NAMES, resamples=500).test["auroc"]
    test = table[table["split"] == "test"]
    sick = (test["label"] == "PNEUMONIA").to_numpy()
    alone = bootstrap(
        lambda weights: {"auroc": auroc(sick, test["probability"], weights)}, sick, test["group"], resamples=500
    ).intervals["auroc"]
    assert paired.high - paired.low < alone.high - alone.low


def test_validation_is_told_without_a_test_of_significance() -> None:
    found = compare(judged(), blurred(judged(), 2.0), NAMES, resamples=100).to_dict()
    assert set(found["validation"]["auroc"]) == {"ours", "theirs", "difference"}
    assert found["test"]["auroc"]["p_value"] > 0
    assert json.loads(json.dumps(found))["bootstrap"]["resamples"] == 100


def test_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="first with 400 and second with 399 images"):
        compare(judged(), judged().iloc[1:], NAMES)

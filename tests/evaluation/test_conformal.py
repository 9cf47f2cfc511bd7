"""Conformal prediction: limits as computed by hand, coverage as promised in each class, and what refuses a coverage."""

from __future__ import annotations

import json
import math
import re
import sys
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import expit

from cxr.errors import ParameterError
from cxr.evaluation.calibration import apply_temperature
from cxr.evaluation.conformal import (
    count_prediction_sets,
    fit_prediction_sets,
    needed_images,
    prediction_set_metrics,
)
from cxr.models.prediction_sets import PredictionSets, label_of
from support.model_folders import make_metadata
from support.simulated_predictions import evaluated, predictions

SEED = 20


def draw(generator: np.random.Generator, normal: int, pneumonia: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of a network that finds pneumonia harder to see than a normal image."""
    logits = np.concatenate([generator.normal(-2.5, 1.0, normal), generator.normal(1.0, 2.0, pneumonia)])
    return np.repeat([0, 1], [normal, pneumonia]), expit(logits)


@pytest.mark.parametrize(
    ("coverage", "normal_at_most", "pneumonia_at_least"),
    [
        # 9 images: the limit is the ceil(10 * coverage)-th of the scores, counted from the surest image.
        (0.9, 0.9, 0.15),
        (0.89, 0.9, 0.15),
        (0.8, 0.8, 0.25),
        (0.75, 0.8, 0.25),
        (0.5, 0.5, 0.55),
    ],
)
def test_the_limits_are_those_computed_by_hand(
    coverage: float, normal_at_most: float, pneumonia_at_least: float
) -> None:
    normal = [0.5, 0.1, 0.2, 0.9, 0.4, 0.3, 0.6, 0.8, 0.7]
    pneumonia = [0.95, 0.15, 0.25, 0.85, 0.35, 0.75, 0.45, 0.65, 0.55]
    sets = fit_prediction_sets([0] * 9 + [1] * 9, normal + pneumonia, coverage=coverage)
    assert sets == PredictionSets(coverage, normal_at_most, pneumonia_at_least, 9, 9)


def test_the_limit_counts_from_one_image_more_than_there_are() -> None:
    """The plain quantile of 20 images would be the 19th score; (20 + 1) * 0.95 makes it the 20th."""
    scores = np.linspace(0.01, 0.2, 20)
    sets = fit_prediction_sets([0] * 20 + [1] * 20, np.concatenate([scores, 1 - scores]), coverage=0.95)
    assert (sets.normal_at_most, sets.pneumonia_at_least) == (scores[19], 1 - scores[19])


def test_equal_scores_all_fit_their_class() -> None:
    sets = fit_prediction_sets([0] * 4 + [1] * 4, [0.2] * 4 + [0.2, 0.7, 0.7, 0.7], coverage=0.75)
    assert (sets.normal_at_most, sets.pneumonia_at_least) == (0.2, 0.2)
    assert sets.classes(0.2) == ("NORMAL", "PNEUMONIA")


@pytest.mark.parametrize(
    ("sets", "labels"),
    [
        (PredictionSets(0.9, 0.6, 0.4, 9, 9), ["NORMAL", "UNCERTAIN", "UNCERTAIN", "UNCERTAIN", "PNEUMONIA"]),
        (PredictionSets(0.9, 0.4, 0.6, 9, 9), ["NORMAL", "NORMAL", "UNCERTAIN", "PNEUMONIA", "PNEUMONIA"]),
    ],
)
def test_both_classes_and_no_class_are_uncertain(sets: PredictionSets, labels: list[str]) -> None:
    assert [label_of(sets.classes(probability)) for probability in (0.3, 0.4, 0.5, 0.6, 0.7)] == labels
    assert sets.uncertain_range == (0.4, 0.6)
    assert len(sets.classes(0.5)) == (2 if sets.normal_at_most > sets.pneumonia_at_least else 0)


@pytest.mark.parametrize("coverage", [0.9, 0.95])
def test_coverage_holds_in_each_class_of_simulated_scores(coverage: float) -> None:
    """Over many draws of validation, the mean coverage of new images is rank / (n + 1), a little above the wanted."""
    generator = np.random.default_rng(SEED)
    shares = []
    for _ in range(400):
        sets = fit_prediction_sets(*draw(generator, 60, 110), coverage=coverage)
        labels, probability = draw(generator, 500, 500)
        measured = prediction_set_metrics(labels, probability, sets, np.ones(1000))
        shares.append([float(measured["normal_coverage"]), float(measured["pneumonia_coverage"])])
    for images, class_shares in zip((60, 110), np.transpose(shares), strict=True):
        expected = math.ceil((images + 1) * Fraction(str(coverage))) / (images + 1)
        error = class_shares.std() / math.sqrt(class_shares.size)
        sys.stdout.write(f"seed={SEED} {images=} {expected=} mean={class_shares.mean()} {error=}\n")
        assert expected >= coverage
        assert class_shares.mean() == pytest.approx(expected, abs=4 * error)


def test_a_rare_class_that_is_hard_to_see_is_covered_as_the_common_one() -> None:
    """One limit for both classes would cover nearly all normal images and far too few with pneumonia."""
    generator = np.random.default_rng(SEED)
    sets = fit_prediction_sets(*draw(generator, 20_000, 1000), coverage=0.9)
    labels, probability = draw(generator, 20_000, 20_000)
    measured = prediction_set_metrics(labels, probability, sets, np.ones(labels.size))
    sys.stdout.write(f"seed={SEED} {measured}\n")
    assert float(measured["normal_coverage"]) == pytest.approx(0.9, abs=0.01)
    assert float(measured["pneumonia_coverage"]) == pytest.approx(0.9, abs=0.03)


def test_a_temperature_changes_no_set() -> None:
    labels, probability = draw(np.random.default_rng(SEED), 80, 80)
    softer = apply_temperature(probability, 2.5)
    plain_sets, softer_sets = (fit_prediction_sets(labels, values, coverage=0.9) for values in (probability, softer))
    assert plain_sets != softer_sets
    assert list(map(plain_sets.classes, probability)) == list(map(softer_sets.classes, softer))


@pytest.mark.parametrize("coverage", [0.5, 0.75, 0.9, 0.95, 0.97, 0.975, 0.99, 0.999])
def test_the_number_of_needed_images_is_the_smallest_that_has_a_limit(coverage: float) -> None:
    needed = needed_images(coverage)
    labels, scores = np.repeat([0, 1], needed), np.linspace(0.1, 0.9, 2 * needed)
    sets = fit_prediction_sets(labels, scores, coverage=coverage)
    assert (sets.normal_at_most, sets.pneumonia_at_least) == (scores[needed - 1], scores[needed])
    with pytest.raises(ParameterError, match=f"at least {needed} validation images of each class for coverage"):
        fit_prediction_sets(labels[1:], scores[1:], coverage=coverage)
    with pytest.raises(ParameterError, match=f"received normal={needed}, pneumonia={needed - 1}; choose"):
        fit_prediction_sets(labels[:-1], scores[:-1], coverage=coverage)


def test_0_95_needs_19_images_and_the_advised_coverage_is_possible() -> None:
    labels, scores = [0] * 12 + [1] * 40, np.linspace(0, 1, 52)
    with pytest.raises(ParameterError, match="at least 19 validation images") as caught:
        fit_prediction_sets(labels, scores, coverage=0.95)
    assert caught.value.exit_status == 2
    advised = re.search(r"a coverage of at most (0\.\d+)", str(caught.value))
    assert advised is not None and advised[1] == "0.923"
    fit_prediction_sets(labels, scores, coverage=float(advised[1]))
    with pytest.raises(ParameterError, match="normal=0, pneumonia=40; choose a split with a larger"):
        fit_prediction_sets([1] * 40, scores[:40], coverage=0.95)


def test_shares_and_counts_of_a_small_case() -> None:
    """NORMAL fits up to 0.6 and PNEUMONIA from 0.4: the answers are N, N, ?, P and N, ?, P, P, P."""
    sets = PredictionSets(0.9, 0.6, 0.4, 9, 9)
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 1]
    probability = [0.1, 0.2, 0.5, 0.7, 0.3, 0.5, 0.7, 0.8, 0.9]
    measured = prediction_set_metrics(labels, probability, sets, np.ones(9))
    assert {name: float(value) for name, value in measured.items()} == pytest.approx(
        {
            "normal_coverage": 3 / 4,
            "pneumonia_coverage": 4 / 5,
            "uncertain": 2 / 9,
            "normal_uncertain": 1 / 4,
            "pneumonia_uncertain": 1 / 5,
            "sensitivity": 3 / 4,
            "specificity": 2 / 3,
        }
    )
    assert count_prediction_sets(probability, sets) == {"normal": 3, "pneumonia": 4, "both": 2, "none": 0}
    apart = PredictionSets(0.9, 0.4, 0.6, 9, 9)
    assert count_prediction_sets(probability, apart) == {"normal": 3, "pneumonia": 4, "both": 0, "none": 2}


def test_weights_count_images_and_an_empty_share_is_unknown() -> None:
    sets = PredictionSets(0.9, 0.6, 0.4, 9, 9)
    labels, probability = np.array([0, 0, 1, 1]), np.array([0.5, 0.1, 0.3, 0.9])
    weights = np.array([[1, 1, 1, 1], [3, 0, 2, 0], [0, 0, 0, 4]])
    measured = prediction_set_metrics(labels, probability, sets, weights)
    for row, weight in enumerate(weights):
        repeated = np.repeat(np.arange(4), weight)
        alone = prediction_set_metrics(labels[repeated], probability[repeated], sets, np.ones(repeated.size))
        for name, values in measured.items():
            assert float(values[row]) == pytest.approx(float(alone[name]), nan_ok=True), name
    assert np.isnan(measured["normal_coverage"][2]) and np.isnan(measured["specificity"][1])


def test_an_evaluation_fits_on_validation_alone_and_reports_test_with_intervals() -> None:
    table = predictions(1200)
    evaluation = evaluated(table, resamples=200, coverage=0.97)
    changed = table.copy()
    is_test = changed["split"] == "test"
    changed.loc[is_test, "probability_raw"] = 1 - changed.loc[is_test, "probability_raw"]
    assert evaluated(changed, resamples=100, coverage=0.97).prediction_sets == evaluation.prediction_sets
    sets = evaluation.prediction_sets
    assert sets is not None and (sets.normal_images, sets.pneumonia_images) == (150, 450)
    validation, test = (evaluation.report[split]["prediction_sets"] for split in ("validation", "test"))
    for name in ("normal_coverage", "pneumonia_coverage"):
        assert 0.97 <= validation[name]["value"] <= 0.98
    for name in ("normal_coverage", "pneumonia_coverage", "uncertain", "sensitivity", "specificity"):
        assert 0 <= test[name]["low"] < test[name]["value"] < test[name]["high"] <= 1, name
    assert sum(test["counts"].values()) == evaluation.report["test"]["images"]
    uncertain = test["counts"]["both"] + test["counts"]["none"]
    assert test["uncertain"]["value"] == pytest.approx(uncertain / evaluation.report["test"]["images"])
    assert test["sensitivity"]["value"] > evaluation.report["test"]["at_threshold"]["sensitivity"]["value"]
    summary = evaluation.summary()
    assert (summary["coverage"], summary["test_uncertain"]) == (0.97, test["uncertain"]["value"])
    card = evaluation.calibrate(make_metadata())
    assert card.prediction_sets == sets and card.threshold == evaluation.operating_point.threshold


def test_without_a_coverage_nothing_is_added_and_with_it_nothing_else_changes() -> None:
    plain, with_sets = (evaluated(predictions(), resamples=100, coverage=coverage) for coverage in (None, 0.9))
    assert "prediction_sets" not in json.dumps([plain.report, plain.summary()])
    assert "prediction_sets" not in json.dumps(plain.calibrate(make_metadata()).to_dict())
    report = {key: value for key, value in with_sets.report.items() if key != "prediction_sets"}
    for split in ("validation", "test"):
        report[split] = {key: value for key, value in report[split].items() if key != "prediction_sets"}
    assert json.dumps(report) == json.dumps(plain.report)
    added = {"coverage", "test_normal_coverage", "test_pneumonia_coverage", "test_uncertain"}
    assert {key: value for key, value in with_sets.summary().items() if key not in added} == plain.summary()
    assert with_sets.predictions.equals(plain.predictions)

"""Metrics agree with scikit-learn, with and without weights, and are NaN where they are undefined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from cxr.evaluation import metrics

SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(rows=SCORED, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_metric_agrees_with_scikit_learn_under_weights(rows: list[tuple[int, int]], seed: int) -> None:
    labels = np.array([label for label, _ in rows])
    probability = np.array([score for _, score in rows]) / 20
    weight = np.random.default_rng(seed).integers(0, 4, (3, len(rows))).astype(float)
    weight[:, [int(labels.argmax()), int(labels.argmin())]] += 1
    called = probability >= 0.4
    values = metrics.compute_metrics(labels, probability, 0.4, weight, bins=15)
    for row, taken in enumerate(weight):
        expected = {
            "auroc": reference.roc_auc_score(labels, probability, sample_weight=taken),
            "average_precision": reference.average_precision_score(labels, probability, sample_weight=taken),
            "accuracy": reference.accuracy_score(labels, called, sample_weight=taken),
            "sensitivity": reference.recall_score(labels, called, sample_weight=taken),
            "specificity": reference.recall_score(1 - labels, ~called, sample_weight=taken),
            "precision": reference.precision_score(labels, called, sample_weight=taken, zero_division=np.nan),
            "brier": reference.brier_score_loss(labels, probability, sample_weight=taken),
            "log_loss": reference.log_loss(labels, np.clip(probability, 1e-7, 1 - 1e-7), sample_weight=taken),
            "oracle_accuracy": max(
                reference.accuracy_score(labels, probability >= threshold, sample_weight=taken)
                for threshold in (*np.unique(probability), 1.1)
            ),
        }
        for name, value in expected.items():
            assert values[name][row] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_f1_is_the_harmonic_mean_of_precision_and_sensitivity() -> None:
    labels, probability = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.8, 0.1, 0.7, 0.2])
    assert metrics.compute_metrics(labels, probability, 0.5, bins=15)["f1"] == pytest.approx(
        reference.f1_score(labels, probability >= 0.5)
    )


def test_the_decision_is_at_or_above_the_threshold() -> None:
    counts = metrics.confusion([1, 0, 1, 0], [0.5, 0.5, 0.4, 0.4], 0.5)
    assert {name: int(count) for name, count in counts.items()} == {
        "true_positives": 1,
        "false_positives": 1,
        "true_negatives": 1,
        "false_negatives": 1,
    }


def test_an_undefined_metric_is_nan_and_never_zero() -> None:
    only_normal = metrics.compute_metrics([0, 0], [0.1, 0.2], 0.5, bins=15)
    assert {name for name, value in only_normal.items() if np.isnan(value)} == {
        "auroc",
        "average_precision",
        "sensitivity",
        "precision",
        "f1",
    }
    assert only_normal["specificity"] == 1
    empty = metrics.compute_metrics([], [], 0.5, bins=15)
    assert all(np.isnan(value) for value in empty.values())


def test_calibration_error_of_a_bin_is_the_gap_between_predicted_and_observed() -> None:
    # Bin [0.8, 0.9): predicted 0.8, half of them positive, 4 of 6 images. Bin [0, 0.1): predicted 0.05, none positive.
    labels, probability = [1, 1, 0, 0, 0, 0], [0.8, 0.8, 0.8, 0.8, 0.05, 0.05]
    assert metrics.calibration_error(labels, probability, bins=10) == pytest.approx(4 / 6 * 0.3 + 2 / 6 * 0.05)


def test_probabilities_of_zero_and_one_have_a_bin() -> None:
    assert metrics.bin_index([0.0, 1.0], 15).tolist() == [0, 14]
    assert metrics.calibration_error([0, 1], [0.0, 1.0], bins=15) == 0


def test_adaptive_bins_hold_equal_numbers_of_images() -> None:
    probability = np.random.default_rng(0).beta(8, 1, 150)
    sizes = np.bincount(metrics.bin_index(probability, 15, adaptive=True))
    assert sizes.tolist() == [10] * 15


def test_the_corners_of_the_roc_curve_give_its_area() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 80)
    probability = generator.random(80).round(1)
    x, y = metrics.roc_rates(labels, probability)
    assert np.trapezoid(y, x) == pytest.approx(float(metrics.auroc(labels, probability)))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


@given(rows=SCORED, specificity=st.floats(0.05, 0.99))
@settings(max_examples=60, deadline=None)
def test_sensitivity_at_a_specificity_is_the_best_corner_of_the_curve(
    rows: list[tuple[int, int]], specificity: float
) -> None:
    labels = np.array([label for label, _ in rows])
    probability = np.array([score for _, score in rows]) / 20
    false_positive_rate, sensitivity, _ = reference.roc_curve(labels, probability, drop_intermediate=False)
    best = sensitivity[false_positive_rate <= 1 - specificity + 1e-12].max()
    assert metrics.sensitivity_at(specificity, labels, probability) == pytest.approx(best)


def test_sensitivity_at_a_specificity_is_unknown_without_both_classes() -> None:
    assert np.isnan(metrics.sensitivity_at(0.9, [1, 1], [0.2, 0.4]))
    assert np.isnan(metrics.sensitivity_at(0.9, [0, 0], [0.2, 0.4]))

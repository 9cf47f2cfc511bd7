"""Temperature scaling finds the temperature that distorted the probabilities, and keeps order and decision."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest

from cxr.data.statistics import wilson_interval
from cxr.errors import DataError
from cxr.evaluation.calibration import apply_temperature, fit_temperature, reliability_table
from cxr.evaluation.metrics import calibration_error


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_that_distorted_calibrated_probabilities_is_found(truth: float) -> None:
    generator = np.random.default_rng(0)
    calibrated = expit(generator.normal(0, 1.5, 20_000))
    labels = (generator.random(20_000) < calibrated).astype(int)
    distorted = expit(logit(calibrated) * truth)
    fitted = fit_temperature(labels, distorted)
    assert fitted == pytest.approx(truth, rel=0.05)
    assert calibration_error(labels, apply_temperature(distorted, fitted), bins=15) < 0.02


def test_temperature_follows_the_formula_and_keeps_order_and_half() -> None:
    p = np.array([0.0, 1e-9, 0.2, 0.5, 0.8, 1.0])
    scaled = apply_temperature(p, 2.0)
    assert scaled[2] == pytest.approx(1 / (1 + (0.8 / 0.2) ** 0.5))
    assert scaled[3] == 0.5
    assert scaled[0] == scaled[1] == pytest.approx(expit(logit(1e-7) / 2))
    assert (np.diff(scaled) >= 0).all()
    assert 0 < scaled[0] < scaled[-1] < 1


def test_perfect_separation_leaves_probabilities_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    assert fit_temperature([0, 0, 1, 1], [0.3, 0.4, 0.6, 0.7]) == 1.0
    assert "separated perfectly" in caplog.text


def test_useless_scores_are_softened() -> None:
    target = np.arange(400) % 2
    assert fit_temperature(target, np.where(np.arange(400) % 4 < 2, 0.02, 0.98)) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("target", [[], [1, 1], [0, 0]])
def test_one_class_cannot_be_calibrated(target: list[int]) -> None:
    with pytest.raises(DataError, match="both classes"):
        fit_temperature(target, [0.5] * len(target))


def test_reliability_counts_every_image_once() -> None:
    table = reliability_table([0, 1, 1, 0], [0.05, 0.95, 0.9, 0.92], bins=10)
    assert table["images"].tolist() == [1, 3]
    assert table["lower"].tolist() == pytest.approx([0.0, 0.9])
    assert table["observed"].tolist() == pytest.approx([0, 2 / 3])
    assert table["probability"].iloc[1] == pytest.approx((0.95 + 0.9 + 0.92) / 3)


def test_wilson_agrees_with_scipy() -> None:
    low, high = wilson_interval([0.3], [10])
    expected = binomtest(3, 10).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))


def test_a_hesitant_network_that_ranks_the_images_is_sharpened_to_the_bound():
    """Its loss also falls to the lower bound, but one image lies on the wrong side of 0.5."""
    target = np.array([0] * 20 + [1] * 20)
    hesitant = np.where(target == 1, 0.5001, 0.4999)
    hesitant[0] = 0.50005
    assert fit_temperature(target, hesitant) == pytest.approx(0.05, rel=0.01)
    hesitant[0] = 0.4999
    assert fit_temperature(target, hesitant) == 1.0

"""The functions of the drawing: near the true values, and exactly what their description says."""

from __future__ import annotations

import numpy as np
import pytest

from cxr.data.phantom.portable_math import exponential, interpolate, logistic, power, sine_and_cosine


def test_sine_and_cosine_are_near_the_true_ones_in_all_quadrants() -> None:
    angle = np.linspace(-40, 40, 4001)
    sine, cosine = sine_and_cosine(angle)
    np.testing.assert_allclose(sine, np.sin(angle), atol=1e-5)
    np.testing.assert_allclose(cosine, np.cos(angle), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponential_is_near_the_true_one_and_keeps_the_type(dtype: type[np.floating]) -> None:
    exponent = np.linspace(-6, 6, 500).astype(dtype)
    result = exponential(exponent)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, np.exp(exponent), rtol=5e-5)
    assert exponent[0] == -6  # its argument is not changed


def test_logistic_is_a_half_at_zero_and_flat_far_away() -> None:
    value = np.array([-1e9, -2.0, 0.0, 2.0, 1e9], np.float32)
    result = logistic(value)
    np.testing.assert_allclose(result, [0, 0.1192029, 0.5, 0.8807970, 1], atol=1e-5)
    assert result[2] == 0.5


@pytest.mark.parametrize("exponent", [0.0, 0.4, 0.92, 1.0, 2.3, 5.0])
def test_power_is_near_the_true_one(exponent: float) -> None:
    base = np.linspace(0.001, 1.2, 300)
    np.testing.assert_allclose(power(base, exponent), base**exponent, rtol=1e-4)
    assert power(0.0, 0.4) == 0


def test_interpolation_goes_through_its_points_and_stays_flat_outside() -> None:
    x = np.array([-1.0, 0.0, 0.25, 0.5, 2.0, 9.0])
    np.testing.assert_allclose(interpolate(x, (0, 0.5, 2), (1, 3, 0)), np.interp(x, (0, 0.5, 2), (1, 3, 0)), atol=1e-12)

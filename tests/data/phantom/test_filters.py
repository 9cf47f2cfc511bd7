"""Blur and change of size of the drawing, against OpenCV's and by their own rules."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cxr.data.phantom.filters import block_mean, enlarge, gaussian_blur, spread_blocks


@pytest.fixture
def disc() -> np.ndarray:
    y, x = np.mgrid[:60, :80]
    return ((x - 30) ** 2 + (y - 28) ** 2 < 400).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.2, 3.9])
def test_blur_is_nearly_a_gaussian(disc: np.ndarray, sigma: float) -> None:
    blurred = gaussian_blur(disc, sigma)
    assert np.abs(blurred - cv2.GaussianBlur(disc, (0, 0), sigma)).max() < 0.05
    assert blurred.dtype == np.float32


def test_blur_is_exact_arithmetic() -> None:
    """The same sums in another order and with 64-bit integers: not one bit differs."""
    rng = np.random.default_rng(5)
    plane = rng.uniform(-3.9, 3.9, (40, 50)).astype(np.float32)
    impulse = np.zeros((41, 41), np.float32)
    impulse[20, 20] = 1
    kernel = np.rint(gaussian_blur(impulse, 2.0) * 4096).astype(np.int64)
    levels = np.rint(plane * np.float32(1024)).astype(np.int64)
    padded = np.pad(levels, 20, mode="reflect")
    total = np.zeros(plane.shape, np.int64)
    for row, column in reversed(np.argwhere(kernel).tolist()):
        total += kernel[row, column] * padded[row : row + 40, column : column + 50]
    assert kernel.sum() == 4096
    np.testing.assert_array_equal(gaussian_blur(plane, 2.0), total / (1024 * 4096))


def test_values_outside_the_range_are_limited() -> None:
    assert gaussian_blur(np.full((9, 9), 50, np.float32), 1.0).max() == 4095 / 1024


def test_a_block_has_the_mean_of_its_pixels(disc: np.ndarray) -> None:
    blocks = block_mean(disc, 20)
    assert blocks.shape == (3, 4)
    assert blocks[1, 1] == pytest.approx(disc[20:40, 20:40].mean())
    assert block_mean(disc, 7).shape == (9, 12)


def test_blocks_spread_to_where_they_came_from() -> None:
    ramp = np.tile(np.arange(64, dtype=np.float32), (48, 1))
    back = spread_blocks(block_mean(ramp, 4), 4, 48, 64)
    np.testing.assert_allclose(back[:, 4:-4], ramp[:, 4:-4], atol=1e-4)


def test_enlarging_is_opencvs_cubic_interpolation(disc: np.ndarray) -> None:
    expected = cv2.resize(disc, (161, 119), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(enlarge(disc, 119, 161), expected, atol=1e-4)

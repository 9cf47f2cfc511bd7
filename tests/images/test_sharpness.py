"""Sharpness and the ratio of gradients agree with NumPy, and tell blurred and squashed images."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from cxr.images.sharpness import measure_gradient_ratio, measure_sharpness


@pytest.fixture
def texture() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (90, 120), dtype=np.uint8)


def test_sharpness_is_the_variance_of_the_laplacian(texture: np.ndarray) -> None:
    checks = (np.indices((40, 60)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for image in (texture, cv2.GaussianBlur(texture, (0, 0), 2), checks):
        assert measure_sharpness(image) == pytest.approx(cv2.Laplacian(image, cv2.CV_64F).var())
    assert measure_sharpness(cv2.GaussianBlur(texture, (0, 0), 1)) < measure_sharpness(texture) / 10


def test_the_ratio_of_gradients_agrees_with_numpy(texture: np.ndarray) -> None:
    across, down = (np.abs(np.diff(texture.astype(int), axis=axis)).mean() for axis in (1, 0))
    assert measure_gradient_ratio(texture) == pytest.approx(across / down)


def test_a_wide_image_that_was_squashed_changes_faster_from_left_to_right(texture: np.ndarray) -> None:
    smooth = cv2.GaussianBlur(cv2.resize(texture, (600, 300)), (0, 0), 6)
    squashed = cv2.resize(smooth, (200, 200), interpolation=cv2.INTER_AREA)
    assert measure_gradient_ratio(squashed) == pytest.approx(2 * measure_gradient_ratio(smooth), rel=0.1)


@pytest.mark.parametrize("shape", [(7, 9), (1, 9), (7, 1)])
def test_an_image_of_one_grey_level_has_no_sharpness_and_an_unknown_ratio(shape: tuple[int, int]) -> None:
    image = np.full(shape, 90, dtype=np.uint8)
    assert measure_sharpness(image) == 0
    assert math.isnan(measure_gradient_ratio(image))

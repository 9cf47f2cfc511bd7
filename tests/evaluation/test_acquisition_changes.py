"""Each acquisition change does what its name says, to every pixel that it concerns and to no other."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from cxr.evaluation.acquisition_changes import (
    ACQUISITION_CHANGES,
    AcquisitionChange,
    blur,
    change_brightness,
    change_contrast,
    change_gamma,
    compress_as_jpeg,
    crop_border,
    rotate,
    sharpen,
    stretch,
)
from cxr.images.sharpness import measure_sharpness

SIDE = 64


@pytest.fixture
def radiograph() -> np.ndarray:
    """A smooth image with texture, from black to light grey."""
    generator = np.random.default_rng(3)
    rows, columns = np.indices((SIDE, SIDE))
    smooth = 90 + 60 * np.sin(rows / 9) * np.cos(columns / 7)
    image = np.clip(smooth + generator.normal(0, 6, (SIDE, SIDE)), 1, 190)
    image[:4] = 0
    return image.astype(np.uint8)


def disc(radius: float = 12, down: float = 31.5, across: float = 31.5) -> np.ndarray:
    rows, columns = np.indices((SIDE, SIDE))
    return np.where((rows - down) ** 2 + (columns - across) ** 2 < radius**2, 200, 20).astype(np.uint8)


def extent(image: np.ndarray) -> tuple[int, int]:
    """Height and width of what is bright."""
    bright = image > 110
    return int(bright.any(axis=1).sum()), int(bright.any(axis=0).sum())


@pytest.mark.parametrize("change", ACQUISITION_CHANGES, ids=lambda change: change.key)
def test_every_change_keeps_size_and_input_and_gives_the_same_result_twice(
    change: AcquisitionChange, radiograph: np.ndarray
) -> None:
    image = np.stack([radiograph, np.where(radiograph > 90, 255, 0).astype(np.uint8)], axis=-1)
    before = image.copy()
    image.setflags(write=False)
    first, second = change.apply(image), change.apply(image)
    assert (first == second).all()
    assert (image == before).all()
    assert first.shape == image.shape and first.dtype == np.uint8
    assert (first[..., 0] != image[..., 0]).mean() > 0.05
    assert (first[..., 1] != image[..., 1]).any() == change.moves_pixels


def test_keys_and_titles_are_unique_and_each_kind_has_two_strengths() -> None:
    assert len({change.key for change in ACQUISITION_CHANGES}) == len(ACQUISITION_CHANGES)
    assert len({change.title for change in ACQUISITION_CHANGES}) == len(ACQUISITION_CHANGES)
    kinds = [change.kind for change in ACQUISITION_CHANGES]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ["gamma", "contrast", "brightness", "blur", "sharpening", "jpeg", "aspect", "crop", "rotation"], 2
    )


def test_gamma_moves_the_middle_and_keeps_black_and_white() -> None:
    levels = np.array([[0, 128, 255]], dtype=np.uint8)
    darker, brighter = change_gamma(levels, 1.5)[0], change_gamma(levels, 0.7)[0]
    assert darker.tolist() == [0, round(255 * (128 / 255) ** 1.5), 255]
    assert brighter.tolist() == [0, round(255 * (128 / 255) ** 0.7), 255]


@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_contrast_scales_the_spread_about_the_mean_and_black_stays_black(factor: float, radiograph: np.ndarray) -> None:
    image = radiograph[4:]
    changed = change_contrast(image, factor)
    assert changed.std() == pytest.approx(factor * image.std(), rel=0.05)
    assert changed.mean() == pytest.approx(image.mean(), abs=1.5)
    assert (change_contrast(radiograph, factor)[:4] == 0).all()


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_brightness_multiplies_grey_levels(factor: float, radiograph: np.ndarray) -> None:
    assert change_brightness(radiograph, factor) == pytest.approx(factor * radiograph.astype(float), abs=0.501)


def test_blur_lowers_the_sharpness_and_sharpening_raises_it(radiograph: np.ndarray) -> None:
    by_strength = [blur(radiograph, 0.02), blur(radiograph, 0.01), radiograph, sharpen(radiograph, 1)]
    sharpness = [measure_sharpness(image) for image in [*by_strength, sharpen(radiograph, 2)]]
    assert all(1.2 * lower < higher for lower, higher in pairwise(sharpness))


def test_a_blur_is_a_share_of_the_side() -> None:
    small = disc()
    large = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)
    shrunk = cv2.resize(blur(large, 0.03), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(float) - blur(small, 0.03)).mean() < 1.5


def test_a_lower_jpeg_quality_loses_more(radiograph: np.ndarray) -> None:
    loss = [np.abs(compress_as_jpeg(radiograph, quality).astype(float) - radiograph).mean() for quality in (95, 50, 20)]
    assert 0 < loss[0] < loss[1] < loss[2] < 15


def test_stretching_changes_the_aspect_ratio_and_not_the_size() -> None:
    height, width = extent(disc())
    wide, tall = extent(stretch(disc(), 1.25)), extent(stretch(disc(), 0.8))
    assert wide == (height, pytest.approx(1.25 * width, abs=2))
    assert tall == (pytest.approx(1.25 * height, abs=2), width)


def test_cutting_off_the_border_enlarges_the_rest_in_both_directions() -> None:
    height, width = extent(disc())
    image = disc()
    image[:6] = image[-6:] = image[:, :6] = image[:, -6:] = 60
    cropped = crop_border(image, 0.1)
    assert extent(cropped) == (pytest.approx(height / 0.8, abs=2), pytest.approx(width / 0.8, abs=2))
    assert not (cropped == 60).any()


def test_a_positive_angle_turns_counterclockwise() -> None:
    right_of_the_centre = disc(4, 31.5, 51.5)
    turned = rotate(right_of_the_centre, 30)
    rows, columns = np.nonzero(turned > 110)
    assert rows.mean() == pytest.approx(31.5 - 20 * np.sin(np.pi / 6), abs=0.5)
    assert columns.mean() == pytest.approx(31.5 + 20 * np.cos(np.pi / 6), abs=0.5)

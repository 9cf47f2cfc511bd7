"""Augmentation moves images as Keras's ImageDataGenerator does, and changes their grey levels, reproducibly."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from cxr.errors import ParameterError
from cxr.training.augmentation import Augmentation, affine_matrices, augment, change_grey_levels

ALL = Augmentation(horizontal_flip=True, rotation=20, zoom=0.2, shear=15, shift=0.1)
EXPOSURE = Augmentation(gamma=0.5, contrast=0.4, brightness=0.3)
PHOTOMETRIC = Augmentation(gamma=0.5, contrast=0.4, brightness=0.3, blur=2, jpeg_quality=30)


@pytest.fixture
def images() -> NDArray[np.uint8]:
    """Smooth random images, so that interpolation differs little between implementations."""
    generator = np.random.default_rng(5)
    coarse = generator.integers(0, 256, (12, 8, 10)).astype(np.uint8)
    return np.stack([cv2.resize(image, (60, 48), interpolation=cv2.INTER_CUBIC) for image in coarse])[..., None]


def keras_reference(image: NDArray[np.uint8], draw: NDArray[np.float64], ranges: Augmentation) -> NDArray[np.uint8]:
    """ImageDataGenerator's transformation, in its own (row, column) order, carried out by SciPy."""
    height, width = image.shape
    angle, shear = np.deg2rad(ranges.rotation * draw[0]), np.deg2rad(ranges.shear * draw[3])
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    shift = np.array([[1, 0, ranges.shift * height * draw[1]], [0, 1, ranges.shift * width * draw[2]], [0, 0, 1]])
    shearing = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    zoom = np.diag([1 + ranges.zoom * draw[4], 1 + ranges.zoom * draw[5], 1])
    to_centre = np.array([[1, 0, (height - 1) / 2], [0, 1, (width - 1) / 2], [0, 0, 1]])
    matrix = to_centre @ rotation @ shift @ shearing @ zoom @ np.linalg.inv(to_centre)
    moved = affine_transform(image.astype(float), matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest")
    if ranges.horizontal_flip and draw[6] < 0:
        moved = moved[:, ::-1]
    return np.round(moved).astype(np.uint8)


def test_it_moves_pixels_as_keras_does(images: NDArray[np.uint8]) -> None:
    draws = np.random.default_rng(1).uniform(-1, 1, (len(images), 7))
    result = augment(images, ALL, np.random.default_rng(1))
    for image, moved, draw in zip(images, result, draws, strict=True):
        difference = np.abs(moved[..., 0].astype(int) - keras_reference(image[..., 0], draw, ALL))
        assert np.percentile(difference, 99) <= 4
        assert difference.mean() < 1
    assert np.abs(result.astype(int) - images).mean() > 10


def test_the_same_generator_gives_the_same_images_with_any_number_of_threads(
    images: NDArray[np.uint8],
) -> None:
    original_threads = cv2.getNumThreads()
    everything = replace(PHOTOMETRIC, horizontal_flip=True, rotation=20, zoom=0.2, shear=15, shift=0.1)
    results = []
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            results.append(augment(images, everything, np.random.default_rng(9)))
    finally:
        cv2.setNumThreads(original_threads)
    np.testing.assert_array_equal(*results)
    assert not np.array_equal(results[0], augment(images, everything, np.random.default_rng(10)))


def test_no_augmentation_changes_nothing(images: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(augment(images, Augmentation(), np.random.default_rng(0)), images)


def test_the_originals_are_not_modified(images: NDArray[np.uint8]) -> None:
    images.flags.writeable = False
    augment(images, ALL, np.random.default_rng(0))
    augment(images, PHOTOMETRIC, np.random.default_rng(0))
    result = augment(images, Augmentation(horizontal_flip=True), np.random.default_rng(0))
    assert result.flags.writeable
    assert not np.shares_memory(result, images)


def test_about_half_of_the_images_are_mirrored_and_never_upside_down() -> None:
    images = np.zeros((400, 16, 16, 1), np.uint8)
    images[:, :4, :4] = 255
    result = augment(images, Augmentation(horizontal_flip=True), np.random.default_rng(0))
    left, right = result[:, 0, 0, 0] == 255, result[:, 0, -1, 0] == 255
    assert np.all(left ^ right)
    assert 150 < right.sum() < 250


def test_mirroring_together_with_a_warp_equals_mirroring_after_it(images: NDArray[np.uint8]) -> None:
    draws = np.random.default_rng(2).uniform(-1, 1, (1, 6))
    plain = affine_matrices(draws, np.array([False]), ALL, 48, 60)[0]
    mirrored = affine_matrices(draws, np.array([True]), ALL, 48, 60)[0]
    points = np.array([[0, 0, 1], [59, 0, 1], [13, 40, 1]]).T
    reflected = np.array([[59, 0, 1], [0, 0, 1], [46, 40, 1]]).T
    np.testing.assert_allclose(mirrored @ points, plain @ reflected)


def test_both_planes_move_in_the_same_way(images: NDArray[np.uint8]) -> None:
    two_planes = np.repeat(images, 2, axis=-1)
    result = augment(two_planes, ALL, np.random.default_rng(4))
    np.testing.assert_array_equal(result[..., 0], result[..., 1])
    one_plane = augment(images, ALL, np.random.default_rng(4)).astype(int)
    assert np.abs(result[..., :1] - one_plane).max() <= 1  # OpenCV rounds one and two channels differently


def test_the_border_is_continued_and_not_black() -> None:
    images = np.full((8, 32, 32, 1), 77, np.uint8)
    assert np.all(augment(images, ALL, np.random.default_rng(0)) == 77)


def test_switching_one_change_off_does_not_change_the_others(images: NDArray[np.uint8]) -> None:
    flipped = augment(images, Augmentation(horizontal_flip=True), np.random.default_rng(6))
    tiny = Augmentation(horizontal_flip=True, shift=1e-9)
    np.testing.assert_array_equal(flipped, augment(images, tiny, np.random.default_rng(6)))


def test_ranges_out_of_bounds_are_reported_together() -> None:
    with pytest.raises(ParameterError) as caught:
        Augmentation(rotation=-1, zoom=1.5, contrast=1, jpeg_quality=0)
    assert len(caught.value.problems) == 4


def test_images_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        augment(np.zeros((1, 8, 8, 1), np.float32), ALL, np.random.default_rng(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("draws", [(1, 1, 1), (-1, -1, -1), (0.3, -0.8, 0.5)])
def test_gamma_contrast_and_brightness_follow_in_this_order(
    images: NDArray[np.uint8], draws: tuple[float, ...]
) -> None:
    image = images[0, ..., 0]
    levels = (image / 255) ** np.exp(0.5 * draws[0])
    levels = levels.mean() + (1 + 0.4 * draws[1]) * (levels - levels.mean())
    expected = np.clip(255 * (1 + 0.3 * draws[2]) * levels, 0, 255)
    changed = change_grey_levels(image, EXPOSURE, np.array([*draws, 1, 1]))
    assert np.abs(changed - expected).max() <= 0.5 + 1e-6
    assert np.abs(changed.astype(int) - image).mean() > 5


def test_blur_has_its_largest_width_at_the_end_of_its_range_and_none_at_the_other(images: NDArray[np.uint8]) -> None:
    image, blur = images[0, ..., 0], Augmentation(blur=2)
    sharp, blurred = (change_grey_levels(image, blur, np.array([0, 0, 0, draw, 0])) for draw in (-1.0, 1.0))
    np.testing.assert_array_equal(sharp, image)
    np.testing.assert_array_equal(blurred, cv2.GaussianBlur(image, (0, 0), 2, borderType=cv2.BORDER_REPLICATE))


def test_the_lowest_quality_loses_most(images: NDArray[np.uint8]) -> None:
    image, compression = images[0, ..., 0], Augmentation(jpeg_quality=10)
    losses = [
        np.abs(change_grey_levels(image, compression, np.array([0, 0, 0, 0, draw])).astype(int) - image).mean()
        for draw in (-1.0, 0.0, 1.0)
    ]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.5


def test_each_image_of_a_batch_gets_another_exposure() -> None:
    images = np.repeat(np.linspace(0, 255, 64, dtype=np.uint8).reshape(1, 8, 8, 1), 6, axis=0)
    result = augment(images, EXPOSURE, np.random.default_rng(3))
    assert len({image.tobytes() for image in result}) == 6


def test_edges_keep_their_values_and_move_with_the_grey_levels(images: NDArray[np.uint8]) -> None:
    edges = np.where(images > 127, 255, 0).astype(np.uint8)
    both = np.concatenate([images, edges], axis=-1)
    exposed = augment(both, PHOTOMETRIC, np.random.default_rng(8))
    np.testing.assert_array_equal(exposed[..., 1:], edges)
    assert np.abs(exposed[..., :1].astype(int) - images).mean() > 5


def test_grey_levels_change_after_the_position_and_do_not_change_it(images: NDArray[np.uint8]) -> None:
    moved = augment(images, ALL, np.random.default_rng(6))
    both = replace(EXPOSURE, horizontal_flip=True, rotation=20, zoom=0.2, shear=15, shift=0.1)
    generator = np.random.default_rng(6)
    generator.uniform(size=(len(images), 7))
    draws = generator.uniform(-1, 1, (len(images), 5))
    expected = [
        change_grey_levels(image[..., 0], EXPOSURE, image_draws)
        for image, image_draws in zip(moved, draws, strict=True)
    ]
    np.testing.assert_array_equal(augment(images, both, np.random.default_rng(6))[..., 0], expected)

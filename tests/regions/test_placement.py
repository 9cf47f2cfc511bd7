"""Boxes follow their images: a shape is drawn, its image is prepared or augmented, and the shape is found again."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cxr.images.recipes import RECIPES, Fit, Recipe, apply_recipe, recipe_named
from cxr.regions.placement import MIN_VISIBLE_SHARE, augment_boxes, to_original, to_prepared
from cxr.training.augmentation import Augmentation, apply_changes, draw_changes

Grey = NDArray[np.uint8]
SHAPES = [(500, 700), (900, 410), (331, 332), (96, 97)]
ALL = Augmentation(horizontal_flip=True, rotation=20, zoom=0.25, shear=15, shift=0.1)


def draw_rectangle(height: int, width: int, box: NDArray[np.float32]) -> Grey:
    """A bright rectangle on a dark image; edges lie between pixels."""
    left, top, right, bottom = (round(float(edge)) for edge in box)
    grey = np.full((height, width), 40, np.uint8)
    grey[top:bottom, left:right] = 210
    return grey


def draw_ellipse(height: int, width: int, box: NDArray[np.float32]) -> Grey:
    """A bright ellipse that fills a box, on a dark image."""
    y, x = np.mgrid[:height, :width] + 0.5
    (left, top, right, bottom) = box.astype(float)
    distance = ((2 * x - left - right) / (right - left)) ** 2 + ((2 * y - top - bottom) / (bottom - top)) ** 2
    return np.where(distance <= 1, 255, 0).astype(np.uint8)


def find_shape(image: Grey) -> NDArray[np.float32]:
    """The box around all bright pixels; brightness is split where Otsu splits it."""
    _, mask = cv2.threshold(image, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def used_rectangle(recipe: Recipe, height: int, width: int) -> NDArray[np.float32]:
    rows, columns = recipe.placement(height, width).source
    return np.array([columns.start, rows.start, columns.stop, rows.stop], np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize("name", RECIPES)
def test_a_shape_is_where_its_box_is_placed_and_back(name: str, fit: Fit, shape: tuple[int, int]) -> None:
    height, width = shape
    recipe = recipe_named(name, fit=fit)
    used = used_rectangle(recipe, *shape)
    sides = used[2:] - used[:2]
    # Inside of what the recipe uses, away from the centre, so that a mirrored or swapped axis is seen.
    box = np.rint(np.concatenate([used[:2] + sides * [0.12, 0.3], used[:2] + sides * [0.4, 0.85]])).astype(np.float32)
    prepared = apply_recipe(recipe, draw_rectangle(height, width, box))[..., 0]
    shown = find_shape(prepared)
    placed = to_prepared(box[None], recipe, *shape)
    assert placed.boxes.dtype == np.float32 and placed.index.tolist() == [0]
    np.testing.assert_allclose(placed.boxes[0], shown, atol=0.75)  # the shape is found in whole pixels

    rows, columns = recipe.placement(*shape).target
    pixel = np.tile(sides / (columns.stop - columns.start, rows.stop - rows.start), 2)  # of the prepared image
    back = to_original(shown[None], recipe, *shape)
    assert (np.abs(back.boxes[0] - box) <= pixel).all(), (back.boxes[0], box)
    np.testing.assert_allclose(to_original(placed.boxes, recipe, *shape).boxes[0], box, atol=1e-2)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("shape", [(400, 800), (800, 400)])
def test_a_crop_cuts_boxes_at_its_border_and_leaves_out_those_outside(name: str, shape: tuple[int, int]) -> None:
    recipe = recipe_named(name, fit="crop")  # the middle 400 of 800
    boxes = np.array([[150, 100, 300, 300], [20, 100, 180, 300], [100, 50, 230, 80], [500, 10, 700, 90]], np.float32)
    if shape[0] > shape[1]:
        boxes = boxes[:, [1, 0, 3, 2]]
    placed = to_prepared(boxes, recipe, *shape)
    assert placed.index.tolist() == [0, 3], "the third shows less than a quarter, the second nothing"
    for position, box in zip(placed.index, placed.boxes, strict=True):
        shown = find_shape(apply_recipe(recipe, draw_rectangle(*shape, boxes[position]))[..., 0])
        np.testing.assert_allclose(box, shown, atol=1.0)
    cut = np.clip(boxes, np.tile(used_rectangle(recipe, *shape)[:2], 2), np.tile(used_rectangle(recipe, *shape)[2:], 2))
    np.testing.assert_allclose(to_original(placed.boxes, recipe, *shape).boxes, cut[placed.index], atol=1e-2)


def test_a_box_is_left_out_from_a_quarter_of_its_area_on() -> None:
    recipe = recipe_named("s2_resize", fit="crop")
    edge = 200  # of the crop, in an image of 400 x 800
    shares = np.array([0.2, 0.24, 0.26, 0.5])
    boxes = np.array([[edge - 100 * (1 - share), 50, edge + 100 * share, 150] for share in shares], np.float32)
    assert to_prepared(boxes, recipe, 400, 800).index.tolist() == np.flatnonzero(shares > MIN_VISIBLE_SHARE).tolist()


def test_boxes_predicted_in_the_black_beside_an_image_are_clipped() -> None:
    recipe = recipe_named("s4_resize", fit="pad")  # rows 56 to 168 show an image of 500 x 1000
    boxes = np.array([[0, 0, 224, 50], [0, 30, 112, 112], [10, 60, 20, 70]], np.float32)
    placed = to_original(boxes, recipe, 500, 1000)
    assert placed.index.tolist() == [1, 2]
    np.testing.assert_allclose(placed.boxes[0], [0, 0, 500, 250], atol=1e-3)


@pytest.mark.parametrize("count", [0, 3])
def test_no_boxes_give_no_boxes(count: int) -> None:
    boxes = np.tile(np.array([[10, 10, 40, 40]], np.float32), (count, 1))
    identity = np.eye(2, 3)
    for placed in (
        to_prepared(boxes, RECIPES["s1_resize"], 100, 100),
        to_original(boxes, RECIPES["s1_resize"], 100, 100),
        augment_boxes(boxes, identity, 64, 64),
    ):
        assert placed.boxes.shape == (count, 4) and placed.index.shape == (count,)


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(horizontal_flip=True),
        Augmentation(rotation=30),
        Augmentation(zoom=0.4),
        Augmentation(shear=25),
        Augmentation(shift=0.15),
        ALL,
    ],
    ids=["flip", "rotation", "zoom", "shear", "shift", "all"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_an_ellipse_is_where_its_box_moved(augmentation: Augmentation, seed: int) -> None:
    height, width, count = 150, 180, 40
    box = np.array([60, 40, 100, 100], np.float32)
    images = np.repeat(draw_ellipse(height, width, box)[None, ..., None], count, axis=0)
    changes = draw_changes(count, height, width, augmentation, np.random.default_rng(seed))
    moved, matrices = apply_changes(images, changes), changes.matrices
    differences = []
    for image, matrix in zip(moved, matrices, strict=True):
        (placed,) = augment_boxes(box[None], matrix, height, width).boxes
        shown = find_shape(image[..., 0])
        is_inside = (shown[:2] > 0).all() and shown[2] < width and shown[3] < height
        if is_inside:
            np.testing.assert_allclose(placed, shown, atol=1.3, err_msg=f"seed={seed}")
            differences.append(placed - shown)
        else:  # the widest part may lie outside
            assert (placed[:2] <= shown[:2] + 1.3).all() and (placed[2:] >= shown[2:] - 1.3).all(), f"seed={seed}"
    assert len(differences) >= count // 2
    # A mistake of half a pixel would be hidden in one image, which is found in whole pixels, but not in their mean.
    centres = np.mean(differences, axis=0).reshape(2, 2).mean(axis=0)
    np.testing.assert_allclose(centres, 0, atol=0.15, err_msg=f"seed={seed}")


def test_the_box_around_the_ellipse_fits_better_than_that_around_the_corners() -> None:
    seed, height, width = 4, 200, 200
    box = np.array([70, 50, 120, 150], np.float32)
    images = np.repeat(draw_ellipse(height, width, box)[None, ..., None], 30, axis=0)
    changes = draw_changes(30, height, width, Augmentation(rotation=20), np.random.default_rng(seed))
    moved, matrices = apply_changes(images, changes), changes.matrices
    too_large = []
    for image, matrix in zip(moved, matrices, strict=True):
        corners = np.array([[x, y, 1] for x in box[[0, 2]] for y in box[[1, 3]]], np.float64) - [0.5, 0.5, 0]
        turned = (corners[:, :2] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T + 0.5
        around_corners = np.prod(turned.max(axis=0) - turned.min(axis=0))
        (left, top, right, bottom) = augment_boxes(box[None], matrix, height, width).boxes[0]
        shown = find_shape(image[..., 0])
        area = np.prod(shown[2:] - shown[:2])
        assert (right - left) * (bottom - top) / area == pytest.approx(1, abs=0.06), f"seed={seed}"
        too_large.append(around_corners / area)
    assert np.mean(too_large) > 1.15, f"seed={seed}"


def test_a_box_that_augmentation_moves_out_of_the_image_vanishes() -> None:
    boxes = np.array([[0, 20, 20, 40], [60, 20, 90, 50]], np.float32)
    to_the_left = np.array([[1, 0, 18], [0, 1, 0]], np.float64)  # the result shows what was 18 columns further right
    placed = augment_boxes(boxes, to_the_left, 100, 100)
    assert placed.index.tolist() == [1]
    np.testing.assert_allclose(placed.boxes[0], [42, 20, 72, 50], atol=1e-4)


def test_each_box_moves_alone() -> None:
    generator = np.random.default_rng(7)
    boxes = np.sort(generator.uniform(0, 100, (6, 2, 2)), axis=1).reshape(6, 4).astype(np.float32)
    (matrix,) = draw_changes(1, 100, 100, ALL, generator).matrices
    together = augment_boxes(boxes, matrix, 100, 100)
    for position, box in zip(together.index, together.boxes, strict=True):
        np.testing.assert_array_equal(augment_boxes(boxes[position : position + 1], matrix, 100, 100).boxes[0], box)

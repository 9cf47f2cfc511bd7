"""The overlap of two boxes is the share of pixels that they have in common."""

from __future__ import annotations

import numpy as np
import pytest

from cxr.regions.overlap import intersection_over_union


def count_pixels(box: np.ndarray, other: np.ndarray) -> float:
    """Paint both boxes on a canvas and count."""
    canvas = np.zeros((2, 40, 40), bool)
    for painted, (left, top, right, bottom) in zip(canvas, (box, other), strict=True):
        painted[int(top) : int(bottom), int(left) : int(right)] = True
    return canvas.all(axis=0).sum() / canvas.any(axis=0).sum()


@pytest.mark.parametrize("seed", [16, 17])
def test_overlap_is_the_share_of_common_pixels(seed):
    corners = np.sort(np.random.default_rng(seed).integers(0, 40, (2, 30, 2, 2)), axis=2)
    corners[:, :, 1] += 1
    boxes, others = corners.reshape(2, 30, 4).astype(np.float32)
    expected = [[count_pixels(box, other) for other in others] for box in boxes]
    np.testing.assert_allclose(intersection_over_union(boxes, others), expected, rtol=1e-12)
    assert 0 < np.count_nonzero(expected) < 900


def test_overlap_equals_a_threshold_where_the_ratio_does():
    boxes = np.array([[0, 0, 20, 1]], np.float32)
    others = np.array([[0, 0, shared, 1] for shared in (8, 9, 10, 11, 15)], np.float32)
    assert intersection_over_union(boxes, others).tolist() == [[0.4, 0.45, 0.5, 0.55, 0.75]]


def test_boxes_without_area_overlap_nothing():
    empty = np.array([[5, 5, 5, 9], [9, 9, 3, 3]], np.float32)
    boxes = np.array([[0, 0, 20, 20]], np.float32)
    assert intersection_over_union(empty, boxes).tolist() == [[0], [0]]
    assert intersection_over_union(empty, empty).tolist() == [[0, 0], [0, 0]]
    assert intersection_over_union(np.zeros((0, 4), np.float32), boxes).shape == (0, 1)

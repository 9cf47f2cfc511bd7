"""Anchors cover the opacities of the RSNA challenge, and deltas lead from an anchor to a box and back."""

from __future__ import annotations

import numpy as np
import pytest
from keras.ops import convert_to_numpy

from cxr.regions.anchors import ANCHORS_PER_CELL, decode_boxes, make_anchors
from cxr.regions.overlap import intersection_over_union
from cxr.regions.targets import encode_boxes

SEED = 1708


def draw_rsna_boxes(number: int) -> np.ndarray:
    """Draw boxes with the statistics of the labels, as shares of the side of the image.

    Widths and heights are log-normal. Their medians are those of the labels; spread and correlation are such that
    height / width is 0.68 to 2.52 in about 90 % of the boxes. A box lies anywhere in the image.
    """
    generator = np.random.default_rng(SEED)
    covariance = [[0.28**2, 0.72 * 0.28 * 0.55], [0.72 * 0.28 * 0.55, 0.55**2]]
    sizes = np.exp(generator.multivariate_normal(np.log([217 / 1024, 298 / 1024]), covariance, number))
    sizes = np.minimum(sizes, 0.95)
    corners = generator.random((number, 2)) * (1 - sizes)
    return np.concatenate([corners, corners + sizes], axis=1)


def test_drawn_boxes_have_the_statistics_of_the_labels():
    boxes = draw_rsna_boxes(20_000)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T * 1024
    assert (np.median(width), np.median(height)) == pytest.approx((217, 298), rel=0.02)
    assert np.percentile(height / width, [5, 95]) == pytest.approx((0.68, 2.52), rel=0.06)


@pytest.mark.parametrize(("side", "share"), [(224, 0.99), (256, 0.99), (512, 0.99), (160, 0.97)])
def test_nearly_every_box_has_an_anchor_that_overlaps_it_by_half(side, share):
    boxes = (draw_rsna_boxes(600) * side).astype(np.float32)
    best = np.concatenate(
        [intersection_over_union(part, make_anchors(side)).max(axis=1) for part in np.split(boxes, 6)]
    )
    assert np.mean(best >= 0.5) >= share, f"{SEED=}"
    assert best.mean() > 0.64


def test_anchors_stand_at_the_middle_of_their_cells_in_the_order_of_a_convolution():
    anchors = make_anchors(64)
    assert anchors.dtype == np.float32
    assert len(anchors) == ANCHORS_PER_CELL * (8 * 8 + 4 * 4 + 2 * 2)
    middles = ((anchors[:, :2] + anchors[:, 2:]) / 2)[::ANCHORS_PER_CELL]
    np.testing.assert_allclose(middles[:9], [[4 + 8 * column, 4] for column in range(8)] + [[4, 12]], atol=1e-4)
    np.testing.assert_allclose(middles[64:69], [[8, 8], [24, 8], [40, 8], [56, 8], [8, 24]], atol=1e-4)
    np.testing.assert_allclose(middles[-4:], [[16, 16], [48, 16], [16, 48], [48, 48]], atol=1e-4)


def test_anchors_of_a_cell_differ_in_size_and_shape():
    width, height = (make_anchors(320)[:ANCHORS_PER_CELL] @ np.array([[-1, 0], [0, -1], [1, 0], [0, 1]])).T
    np.testing.assert_allclose(np.sqrt(width * height), np.repeat([32, 32 * 2**0.5], 3), rtol=1e-5)
    np.testing.assert_allclose(height / width, np.tile([0.75, 1.35, 2.4], 2), rtol=1e-5)


def test_deltas_lead_from_an_anchor_to_its_box_and_back():
    anchors = make_anchors(64)
    boxes = np.tile(np.float32([[3, 5, 30, 60]]), (len(anchors), 1))
    deltas = convert_to_numpy(encode_boxes(boxes, anchors))
    assert deltas.dtype == np.float32
    np.testing.assert_allclose(decode_boxes(deltas, anchors), boxes, atol=1e-3)
    assert not convert_to_numpy(encode_boxes(anchors, anchors)).any()


def test_deltas_are_shares_of_the_anchor():
    anchor = np.float32([[10, 20, 30, 60]])
    moved_and_doubled = np.float32([[2, 14, 42, 74]])
    deltas = convert_to_numpy(encode_boxes(moved_and_doubled, anchor))
    np.testing.assert_allclose(deltas * (0.1, 0.1, 0.2, 0.2),
                               [[0.1, 0.1, np.log(2), np.log(1.5)]], rtol=1e-5)  # fmt: skip


def test_absurd_deltas_give_finite_boxes():
    boxes = decode_boxes(np.full((1, 4), 1e6, np.float32), np.float32([[10, 20, 30, 60]]))
    assert np.isfinite(boxes).all()

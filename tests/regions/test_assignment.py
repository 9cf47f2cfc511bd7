"""Which anchor stands for which box, and the targets that training gets."""

from __future__ import annotations

import numpy as np
import pytest

from cxr.regions.anchors import decode_boxes, make_anchors
from cxr.regions.assignment import IGNORED, NEGATIVE, assign_anchors, assign_batch
from cxr.regions.overlap import intersection_over_union
from support.detection_targets import target_arrays

NO_BOXES = np.zeros((0, 4), np.float32)


def row(*pairs: tuple[float, float]) -> np.ndarray:
    """Boxes of height 1, from left and right."""
    return np.array([[left, 0, right, 1] for left, right in pairs], np.float32)


def test_anchors_are_positive_from_a_half_ignored_from_two_fifths_and_else_negative():
    boxes = row((0, 20))
    anchors = row((0, 19), (0, 10), (0, 9.8), (0, 8), (0, 7.8), (30, 40))
    assert assign_anchors(anchors, boxes).tolist() == [0, 0, IGNORED, IGNORED, NEGATIVE, NEGATIVE]


def test_an_anchor_stands_for_the_box_that_it_overlaps_most():
    assert assign_anchors(row((0, 10), (10, 20)), row((9, 19), (0, 12))).tolist() == [1, 0]


def test_the_best_anchor_of_a_box_is_positive_however_small_the_overlap_is():
    anchors = row((0, 10), (12, 22))
    assert assign_anchors(anchors, row((12, 14))).tolist() == [NEGATIVE, 0]


def test_each_of_two_boxes_with_the_same_best_anchor_gets_one():
    anchors = row((0, 10), (11, 21), (40, 50))
    boxes = row((0, 10), (3, 12))
    assert assign_anchors(anchors, boxes).tolist() == [0, 1, NEGATIVE]


@pytest.mark.parametrize("seed", [3, 4])
def test_every_opacity_of_any_shape_gets_an_anchor(seed):
    anchors = make_anchors(96)
    corners = np.sort(np.random.default_rng(seed).uniform(0, 96, (40, 2, 2)), axis=1)
    for boxes in np.split(corners.reshape(-1, 4).astype(np.float32), 10):
        assigned = assign_anchors(anchors, boxes)
        assert set(assigned[assigned >= 0]) == {0, 1, 2, 3}


def test_boxes_without_area_get_no_anchor():
    boxes = np.float32([[5, 5, 5, 9], [8, 8, 24, 30]])
    targets = target_arrays(make_anchors(32), [boxes])
    assert 0 not in assign_anchors(make_anchors(32), boxes)
    assert np.isfinite(targets["box_deltas"]).all()


def test_targets_of_positive_anchors_lead_to_the_boxes_and_others_are_zero():
    anchors = make_anchors(96)
    boxes = np.float32([[10, 12, 40, 50], [55, 20, 80, 70]])
    targets = target_arrays(anchors, [boxes, NO_BOXES])
    classes, deltas = targets["class_logits"][0], targets["box_deltas"][0]
    positive = classes == 1
    assert positive.sum() >= 4
    np.testing.assert_array_equal(deltas[:, 4] == 1, positive)
    decoded = decode_boxes(deltas[positive, :4], anchors[positive])
    best = intersection_over_union(decoded, boxes)
    np.testing.assert_allclose(best.max(axis=1), 1, atol=1e-4)
    assert set(best.argmax(axis=1)) == {0, 1}
    assert not deltas[~positive].any()
    assert set(np.unique(classes)) == {-1, 0, 1}


def test_an_image_without_boxes_is_negative_everywhere():
    anchors = make_anchors(96)
    targets = target_arrays(anchors, [NO_BOXES, np.float32([[10, 12, 40, 50]]), NO_BOXES])
    assert targets["image_logit"].tolist() == [[0], [1], [0]]
    for image in (0, 2):
        assert not targets["class_logits"][image].any()
        assert not targets["box_deltas"][image].any()
    assert {array.dtype for array in targets.values()} == {np.dtype(np.float32)}


def test_all_batches_have_the_same_shape_and_a_byte_per_anchor():
    anchors = make_anchors(96)
    boxes = np.float32([[10, 12, 40, 50], [55, 20, 80, 70]])
    batches = [assign_batch(anchors, image_boxes, 3) for image_boxes in ([boxes, NO_BOXES], [NO_BOXES, boxes[:1]])]
    for batch in batches:
        assert batch["assigned"].dtype == np.int8 and batch["assigned"].shape == (2, len(anchors))
        assert batch["boxes"].shape == (2, 3, 4)


def test_images_with_more_boxes_than_a_byte_counts_keep_them_all():
    corners = np.random.default_rng(5).uniform(0, 80, (200, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 12], axis=1)
    anchors = make_anchors(96)
    assert assign_batch(anchors, [boxes], len(boxes))["assigned"].max() > 150
    targets = target_arrays(anchors, [boxes])
    positive = targets["class_logits"][0] == 1
    decoded = decode_boxes(targets["box_deltas"][0, positive, :4], anchors[positive])
    np.testing.assert_allclose(intersection_over_union(decoded, boxes).max(axis=1), 1, atol=1e-3)

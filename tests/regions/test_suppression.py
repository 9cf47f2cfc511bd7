"""From outputs to boxes: inside of the image, by falling score, one per opacity."""

from __future__ import annotations

import numpy as np
import pytest
from keras.ops import convert_to_numpy

from cxr.regions.anchors import make_anchors
from cxr.regions.suppression import detect_boxes, suppress_overlapping
from cxr.regions.targets import encode_boxes

SIDE = 64
ANCHORS = make_anchors(SIDE)
LIMITS = {"min_score": 0.05, "max_overlap": 0.3, "max_boxes": 10}


def outputs_for(*images: dict[int, tuple[float, list[float]]]) -> dict[str, np.ndarray]:
    """Outputs whose listed anchors predict a score and a box; all others are sure that there is nothing."""
    logits = np.full((len(images), len(ANCHORS)), -20, np.float32)
    deltas = np.zeros((len(images), len(ANCHORS), 4), np.float32)
    for number, image in enumerate(images):
        for anchor, (score, box) in image.items():
            logits[number, anchor] = np.log(score / (1 - score))
            deltas[number, anchor] = convert_to_numpy(encode_boxes(np.float32(box), ANCHORS[anchor]))
    return {"class_logits": logits, "box_deltas": deltas}


def test_boxes_come_by_falling_score_in_the_image_that_they_are_in():
    first = {40: (0.3, [2, 4, 20, 30]), 7: (0.9, [40, 10, 60, 30])}
    detections = detect_boxes(outputs_for(first, {}, {3: (0.5, [1, 1, 9, 9])}), ANCHORS, SIDE, **LIMITS)
    np.testing.assert_allclose(detections[0].boxes, [[40, 10, 60, 30], [2, 4, 20, 30]], atol=1e-3)
    np.testing.assert_allclose(detections[0].scores, [0.9, 0.3], rtol=1e-5)
    assert (detections[1].boxes.shape, detections[1].scores.shape) == ((0, 4), (0,))
    np.testing.assert_allclose(detections[2].boxes, [[1, 1, 9, 9]], atol=1e-3)
    assert {detections[0].boxes.dtype, detections[0].scores.dtype} == {np.dtype(np.float32)}


def test_boxes_are_clipped_to_the_image_and_vanish_outside_of_it():
    outputs = outputs_for({0: (0.9, [-10, 40, 12, 90]), 5: (0.8, [70, 10, 90, 20])})
    detections = detect_boxes(outputs, ANCHORS, SIDE, **LIMITS)
    np.testing.assert_allclose(detections[0].boxes, [[0, 40, 12, 64]], atol=1e-3)


@pytest.mark.parametrize(
    ("limits", "scores"),
    [({}, [0.9, 0.6, 0.2]), ({"min_score": 0.5}, [0.9, 0.6]), ({"max_boxes": 1}, [0.9]), ({"min_score": 0.95}, [])],
)
def test_limits_of_score_and_number_are_kept(limits, scores):
    image = {1: (0.2, [0, 0, 9, 9]), 2: (0.9, [20, 20, 29, 29]), 3: (0.6, [40, 40, 49, 49])}
    detections = detect_boxes(outputs_for(image), ANCHORS, SIDE, **(LIMITS | limits))
    assert detections[0].scores.tolist() == pytest.approx(scores)


def test_a_box_that_was_suppressed_suppresses_no_other():
    boxes = np.float32([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    assert suppress_overlapping(boxes, np.float32([0.7, 0.8, 0.9]), max_overlap=0.3, max_boxes=60).tolist() == [2, 0]
    assert suppress_overlapping(boxes, np.float32([0.7, 0.9, 0.8]), max_overlap=0.3, max_boxes=60).tolist() == [1]
    assert suppress_overlapping(boxes, np.float32([0.7, 0.8, 0.9]), max_overlap=0.5, max_boxes=60).tolist() == [2, 1, 0]


def test_of_equal_scores_the_first_box_stays():
    boxes = np.float32([[0, 0, 10, 10], [1, 0, 11, 10]])
    assert suppress_overlapping(boxes, np.float32([0.5, 0.5]), max_overlap=0.3, max_boxes=60).tolist() == [0]


@pytest.mark.parametrize("seed", [9, 10])
def test_suppression_agrees_with_its_definition(seed):
    """A box remains exactly if it overlaps no remaining box with a higher score; checked on pixels."""
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 40, (60, 2))
    boxes = np.concatenate([corners, corners + generator.integers(4, 24, (60, 2))], axis=1)
    scores = generator.permutation(60).astype(np.float32)
    pixels = [{(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in boxes.tolist()]
    remaining: list[int] = []
    for number in np.argsort(-scores):
        if all(len(pixels[number] & pixels[k]) <= 0.25 * len(pixels[number] | pixels[k]) for k in remaining):
            remaining.append(int(number))
    assert 5 < len(remaining) < 55
    for most in (60, 5):
        chosen = suppress_overlapping(boxes.astype(np.float32), scores, max_overlap=0.25, max_boxes=most)
        assert chosen.tolist() == remaining[:most]

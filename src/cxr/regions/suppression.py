"""From the outputs of the detector to boxes: decoding, clipping to the image, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cxr.data.boxes import Boxes
from cxr.regions.anchors import decode_boxes
from cxr.regions.overlap import intersection_over_union


@dataclass(frozen=True, eq=False)
class DetectedBoxes:
    """Boxes of an image, by falling score.

    Attributes:
        boxes: ``(boxes, 4)`` in pixels.
        scores: ``(boxes,)`` float32 in [0, 1]; higher is surer, it is no calibrated probability.
    """

    boxes: Boxes
    scores: NDArray[np.float32]


def detect_boxes(
    outputs: Mapping[str, NDArray[np.float32]],
    anchors: Boxes,
    side: int,
    *,
    min_score: float,
    max_overlap: float,
    max_boxes: int,
) -> list[DetectedBoxes]:
    """Decode the outputs of the detector.

    Args:
        outputs: ``class_logits`` ``(batch, anchors)`` and ``box_deltas`` ``(batch, anchors, 4)``.
        anchors: ``(anchors, 4)``, as :func:`cxr.regions.anchors.make_anchors` gives them.
        side: side of the detector's input, pixels.
        min_score: score that a box must reach, in [0, 1].
        max_overlap: see :func:`suppress_overlapping`.
        max_boxes: largest number of boxes of an image.

    Returns:
        The boxes of each image in pixels of the detector's input, clipped to it.
    """
    detections = []
    for logits, deltas in zip(outputs["class_logits"], outputs["box_deltas"], strict=True):
        scores = expit(logits.astype(np.float32))
        candidates = np.flatnonzero(scores >= min_score)
        boxes = np.clip(decode_boxes(deltas[candidates], anchors[candidates]), 0, side)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        boxes, scores = boxes[has_area], scores[candidates][has_area]
        remaining = suppress_overlapping(boxes, scores, max_overlap=max_overlap, max_boxes=max_boxes)
        detections.append(DetectedBoxes(boxes[remaining], scores[remaining]))
    return detections


def suppress_overlapping(
    boxes: Boxes, scores: NDArray[np.float32], *, max_overlap: float, max_boxes: int
) -> NDArray[np.intp]:
    """Choose boxes by falling score, and leave out each one that overlaps a chosen one too much.

    Args:
        boxes: ``(boxes, 4)``.
        scores: ``(boxes,)``; of equal scores the first comes first.
        max_overlap: intersection over union above which two boxes are taken for the same opacity, in [0, 1].
        max_boxes: most boxes to choose. Time grows with it, and not with the square of the number of boxes.

    Returns:
        Numbers of the chosen boxes, by falling score.
    """
    chosen: list[np.intp] = []
    remaining = np.argsort(-scores, kind="stable")
    while len(remaining) and len(chosen) < max_boxes:
        best, remaining = remaining[0], remaining[1:]
        chosen.append(best)
        overlaps = intersection_over_union(boxes[[best]], boxes[remaining])[0]
        remaining = remaining[overlaps <= max_overlap]
    return np.array(chosen, np.intp)

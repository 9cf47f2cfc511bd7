"""Which anchor stands for which box in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.data.boxes import Boxes
from cxr.regions.overlap import intersection_over_union

POSITIVE_OVERLAP, NEGATIVE_OVERLAP = 0.5, 0.4
"""An anchor stands for a box from this intersection over union on, and for none below the other (Lin et al. 2017)."""
NEGATIVE, IGNORED = -1, -2
"""In place of the number of a box: an anchor that stands for none, and one that is left out of the losses."""

ASSIGNED = "assigned"
"""Number of each anchor's box ``(batch, anchors)``, :data:`NEGATIVE` or :data:`IGNORED`."""

BOXES = "boxes"
"""Boxes ``(batch, most, 4)``, float32, in pixels of the detector's input; images with fewer boxes have zeros."""


def assign_anchors(anchors: Boxes, boxes: Boxes) -> NDArray[np.intp]:
    """Assign each anchor of an image to a box.

    An anchor belongs to the box that it overlaps most, if it overlaps it enough. The best anchor of a box always
    belongs to it: otherwise a box of a rare size or shape would have none. If it is the best of two boxes, the first
    box gets it, and the other one its next best anchor.

    Args:
        anchors: ``(anchors, 4)``.
        boxes: ``(boxes, 4)`` in the same pixels; boxes that overlap no anchor get none.

    Returns:
        ``(anchors,)``: number of the box, :data:`NEGATIVE` or :data:`IGNORED`.
    """
    if not len(boxes):
        return np.full(len(anchors), NEGATIVE)
    overlap = intersection_over_union(boxes, anchors)
    best_overlap = overlap.max(axis=0)
    assigned: NDArray[np.intp] = overlap.argmax(axis=0)
    assigned[best_overlap < POSITIVE_OVERLAP] = IGNORED
    assigned[best_overlap < NEGATIVE_OVERLAP] = NEGATIVE
    for number in range(len(boxes)):
        best = overlap[number].argmax()
        if overlap[number, best] > 0:
            assigned[best] = number
            overlap[:, best] = 0
    return assigned


def assign_batch(anchors: Boxes, boxes: Sequence[Boxes], most: int) -> dict[str, NDArray[Any]]:
    """Assign the anchors of each image of a batch: all that the device needs to make the targets.

    It is a byte per anchor. The targets themselves (:func:`cxr.regions.targets.detection_targets`) have 24.

    Args:
        anchors: ``(anchors, 4)``, as :func:`cxr.regions.anchors.make_anchors` gives them.
        boxes: ``(boxes, 4)`` of each image, in pixels of the detector's input; ``(0, 4)`` without opacities.
        most: most boxes of an image, in this batch and all others: every batch has the same shape.

    Returns:
        :data:`ASSIGNED` in the smallest signed type that holds ``most``, and :data:`BOXES`.
    """
    assigned = np.empty((len(boxes), len(anchors)), np.min_scalar_type(-most - 1))
    padded = np.zeros((len(boxes), max(1, most), 4), np.float32)
    for image, image_boxes in enumerate(boxes):
        assigned[image] = assign_anchors(anchors, image_boxes)
        padded[image, : len(image_boxes)] = image_boxes
    return {ASSIGNED: assigned, BOXES: padded}

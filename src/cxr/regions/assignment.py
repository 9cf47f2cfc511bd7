"""Which anchor stands for which box in training, and the detector's targets that follow from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxr.data.boxes import Boxes
from cxr.regions.anchors import encode_boxes
from cxr.regions.overlap import intersection_over_union

POSITIVE_OVERLAP, NEGATIVE_OVERLAP = 0.5, 0.4
"""An anchor stands for a box from this intersection over union on, and for none below the other (Lin et al. 2017)."""
NEGATIVE, IGNORED = -1, -2
"""In place of the number of a box: an anchor that stands for none, and one that is left out of the losses."""


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
    overlap = intersection_over_union(anchors, boxes)
    best_overlap = overlap.max(axis=1)
    assigned: NDArray[np.intp] = overlap.argmax(axis=1)
    assigned[best_overlap < POSITIVE_OVERLAP] = IGNORED
    assigned[best_overlap < NEGATIVE_OVERLAP] = NEGATIVE
    for number in range(len(boxes)):
        best = overlap[:, number].argmax()
        if overlap[best, number] > 0:
            assigned[best] = number
            overlap[best] = 0
    return assigned


def detection_targets(anchors: Boxes, boxes: Sequence[Boxes]) -> dict[str, NDArray[np.float32]]:
    """Make the targets of a batch, one per output of the detector.

    Args:
        anchors: ``(anchors, 4)``, as :func:`cxr.regions.anchors.make_anchors` gives them.
        boxes: ``(boxes, 4)`` of each image, in pixels of the detector's input; ``(0, 4)`` without opacities.

    Returns:
        Name of the output to float32 target:

        * ``class_logits``: ``(batch, anchors)``: 1 (stands for a box), 0 (for none) or -1 (left out).
        * ``box_deltas``: ``(batch, anchors, 5)``: deltas to the box, then 1; five zeros where there is no box.
        * ``image_logit``: ``(batch, 1)``: whether the image has a box.
    """
    classes = np.zeros((len(boxes), len(anchors)), np.float32)
    deltas = np.zeros((len(boxes), len(anchors), 5), np.float32)
    for image, image_boxes in enumerate(boxes):
        assigned = assign_anchors(anchors, image_boxes)
        positive = assigned >= 0
        classes[image, positive] = 1
        classes[image, assigned == IGNORED] = -1
        deltas[image, positive, :4] = encode_boxes(image_boxes[assigned[positive]], anchors[positive])
        deltas[image, positive, 4] = 1
    has_box = np.array([[len(image_boxes) > 0] for image_boxes in boxes], np.float32)
    return {"class_logits": classes, "box_deltas": deltas, "image_logit": has_box}

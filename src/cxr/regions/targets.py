"""What the detector should answer, made of boxes on the device that trains, through Keras operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from cxr.data.boxes import Boxes
from cxr.regions.anchors import DELTA_SCALES
from cxr.regions.assignment import ASSIGNED, BOXES, IGNORED


def detection_targets(batch: Mapping[str, Any], anchors: Boxes) -> dict[str, Any]:
    """Make the targets of a batch, one per output of the detector.

    Args:
        batch: the result of :func:`cxr.regions.assignment.assign_batch`.
        anchors: ``(anchors, 4)``, those that it was made with.

    Returns:
        Name of the output to float32 target:

        * ``class_logits``: ``(batch, anchors)``: 1 (stands for a box), 0 (for none) or -1 (left out).
        * ``box_deltas``: ``(batch, anchors, 5)``: deltas to the box, then 1; five zeros where there is no box.
        * ``image_logit``: ``(batch, 1)``: whether the image has a box.
    """
    assigned, boxes = ops.cast(batch[ASSIGNED], "int32"), ops.cast(batch[BOXES], "float32")
    is_positive = ops.expand_dims(assigned >= 0, -1)
    own_boxes = ops.take_along_axis(boxes, ops.maximum(ops.expand_dims(assigned, -1), 0), axis=1)
    # The deltas from an anchor to itself are zeros.
    deltas = encode_boxes(ops.where(is_positive, own_boxes, anchors), anchors)
    has_box = ops.any(boxes[..., 2:] > 0, axis=(1, 2))
    return {
        "class_logits": ops.cast(assigned >= 0, "float32") - ops.cast(ops.equal(assigned, IGNORED), "float32"),
        "box_deltas": ops.concatenate([deltas, ops.cast(is_positive, "float32")], axis=-1),
        "image_logit": ops.cast(ops.expand_dims(has_box, -1), "float32"),
    }


def encode_boxes(boxes: Any, anchors: Any) -> Any:
    """Compute the deltas from each anchor to its box: the inverse of :func:`cxr.regions.anchors.decode_boxes`.

    Args:
        boxes: ``(..., boxes, 4)`` float32, each with an area.
        anchors: ``(boxes, 4)`` float32, the anchor of each box.

    Returns:
        :data:`cxr.regions.anchors.Deltas`, of the shape of the boxes.
    """
    boxes, anchors = ops.convert_to_tensor(boxes), ops.convert_to_tensor(anchors)
    sizes, anchor_sizes = (corners[..., 2:] - corners[..., :2] for corners in (boxes, anchors))
    shifts = boxes[..., :2] + sizes / 2 - (anchors[..., :2] + anchor_sizes / 2)
    deltas = ops.concatenate([shifts / anchor_sizes, ops.log(sizes / anchor_sizes)], axis=-1)
    return ops.divide(deltas, DELTA_SCALES)

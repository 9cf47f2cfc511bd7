"""How much two boxes overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def intersection_over_union(boxes: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]]) -> Floats:
    """Divide the area that two boxes share by the area that they cover together.

    Computed in float64, so that a ratio of whole pixels equals a threshold, for example 0.5, where it should.

    Args:
        boxes: ``(boxes, 4)``: left, top, right, bottom in pixels.
        others: ``(others, 4)`` in the same pixels.

    Returns:
        ``(boxes, others)`` in [0, 1]; 0 where both boxes are empty.
    """
    first, second = boxes.astype(np.float64), others.astype(np.float64)
    top_left = np.maximum(first[:, np.newaxis, :2], second[np.newaxis, :, :2])
    bottom_right = np.minimum(first[:, np.newaxis, 2:], second[np.newaxis, :, 2:])
    intersection = _area(bottom_right - top_left)
    union = _area(first[:, 2:] - first[:, :2])[:, np.newaxis] + _area(second[:, 2:] - second[:, :2]) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _area(sizes: Floats) -> Floats:
    """Multiply width and height, ``(..., 2)`` to ``(...)``; 0 where one is negative."""
    positive = np.maximum(sizes, 0)
    return positive[..., 0] * positive[..., 1]

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
    # One array per side of the boxes: NumPy is slow on arrays whose last axis has two places.
    first, second = (np.ascontiguousarray(array.T, np.float64) for array in (boxes, others))
    first, second = first[..., np.newaxis], second[:, np.newaxis]
    (left, top), (right, bottom) = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    intersection = _area(left, top, right, bottom)
    union = _area(*first) + _area(*second) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _area(left: Floats, top: Floats, right: Floats, bottom: Floats) -> Floats:
    """Multiply width and height; 0 where one is negative."""
    area: Floats = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    return area

"""Anchors: the boxes that the detector starts from, and the deltas from an anchor to a box.

Sizes are shares of the side of the image, not of the stride of a feature map as in Lin et al. 2017: the same chest
fills an image of 224 and of 512 pixels, so its opacities cover the same share of both. Sizes and shapes come from
the labels of the RSNA Pneumonia Detection Challenge: median 217 x 298 of 1024 pixels, height / width 0.68 to 2.52 in
90 % of the boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.data.boxes import Boxes

Deltas = NDArray[np.float32]
"""float32 ``(boxes, 4)``: shift of the centre to the right and down, as shares of the anchor's width and height, and
logarithms of width and height as multiples of the anchor's, each divided by :data:`DELTA_SCALES`."""


@dataclass(frozen=True)
class PyramidLevel:
    """A level of the feature pyramid.

    Attributes:
        name: its name in the paper.
        stride: distance of two cells, pixels.
        size: square root of the area of its smallest anchors, as a share of the side of the image.
    """

    name: str
    stride: int
    size: float


LEVELS = (PyramidLevel("p3", 8, 0.1), PyramidLevel("p4", 16, 0.2), PyramidLevel("p5", 32, 0.4))
SCALES = (1.0, math.sqrt(2.0))
"""Sizes of the anchors of a cell, as multiples of the size of its level."""
RATIOS = (0.75, 1.35, 2.4)
"""Height / width of the anchors of a cell."""
ANCHORS_PER_CELL = len(SCALES) * len(RATIOS)
DELTA_SCALES = np.array([0.1, 0.1, 0.2, 0.2], np.float32)
"""What deltas are divided by, so that they vary about as much as logits: the value of Girshick's Fast R-CNN (2015)."""
_MAX_LOG_SIZE = 4.0
"""A box is at most 55 times as wide or high as its anchor; more would overflow before it is clipped to the image."""


def make_anchors(side: int) -> Boxes:
    """Make the anchors of an image, in the order of the detector's outputs.

    Args:
        side: side of the square image, pixels; a multiple of the largest stride.

    Returns:
        ``(anchors, 4)``: by level, row, column, scale and ratio. Anchors at the edge reach beyond the image.
    """
    return np.concatenate([_make_level(level, side) for level in LEVELS])


def decode_boxes(deltas: Deltas, anchors: Boxes) -> Boxes:
    """Compute the box of each anchor: the inverse of :func:`cxr.regions.targets.encode_boxes`.

    Args:
        deltas: ``(boxes, 4)``.
        anchors: ``(boxes, 4)``, the anchor of each box.

    Returns:
        ``(boxes, 4)``, not clipped to the image.
    """
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    anchor_centres = anchors[:, :2] + anchor_sizes * np.float32(0.5)
    scaled = deltas * DELTA_SCALES
    centres = anchor_centres + scaled[:, :2] * anchor_sizes
    half_sizes = anchor_sizes * np.exp(np.minimum(scaled[:, 2:], _MAX_LOG_SIZE)) / 2
    return np.concatenate([centres - half_sizes, centres + half_sizes], axis=-1).astype(np.float32)


def _make_level(level: PyramidLevel, side: int) -> Boxes:
    middles = (np.arange(side // level.stride) + 0.5) * level.stride
    rows, columns = np.meshgrid(middles, middles, indexing="ij")
    centres = np.stack([columns, rows], axis=-1)[:, :, np.newaxis]
    sizes = side * level.size * np.asarray(SCALES)[:, np.newaxis, np.newaxis]
    half_sizes = (sizes / 2 * np.stack([np.power(RATIOS, -0.5), np.sqrt(RATIOS)], axis=-1)).reshape(-1, 2)
    return np.concatenate([centres - half_sizes, centres + half_sizes], axis=-1, dtype=np.float32).reshape(-1, 4)

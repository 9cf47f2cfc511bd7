"""A radiograph in numbers: statistics that people understand, and an outline that tells a chest from anything else."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]

STATISTICS: Mapping[str, str] = {
    "mean": "mean grey level, 0 to 255",
    "contrast": "standard deviation of the grey levels",
    "dark": "share of nearly black pixels (below 16)",
    "bright": "share of nearly white pixels (240 and above)",
    "sharpness": "strength of fine detail at 128 pixels a side, in grey levels",
    "asymmetry": "difference between the left half and the mirrored right half, 0 (none) to 2",
    "aspect": "width divided by height",
    "megapixels": "millions of pixels",
}
"""Statistics of a picture, each with a sentence for people."""

SIDE, CELLS, BINS, THUMBNAIL = 64, 8, 8, 24
OUTLINE = THUMBNAIL**2 + CELLS**2 * BINS
"""Length of an outline."""
_QUIET_GREY, _QUIET_GRADIENT = 8.0, 4.0
"""Grey levels below which a contrast counts as noise and is not blown up."""


def statistics(grey: NDArray[np.uint8]) -> dict[str, float]:
    """Measure a picture.

    Args:
        grey: ``(height, width)`` uint8.

    Returns:
        A value for each of :data:`STATISTICS`.
    """
    height, width = grey.shape
    small = _shrink(grey, 128)
    halves = _shrink(grey, 32).astype(np.float64)
    left, right = halves[:, :16], halves[:, :15:-1]
    return {
        "mean": float(small.mean()),
        "contrast": float(small.std()),
        "dark": float(np.mean(small < 16)),
        "bright": float(np.mean(small >= 240)),
        "sharpness": float(cv2.Laplacian(small, cv2.CV_32F).std()),
        "asymmetry": 1 - _correlation(left, right),
        "aspect": width / height,
        "megapixels": height * width / 1e6,
    }


def outline(grey: NDArray[np.uint8]) -> Vector:
    """Describe where a picture is bright and which way its edges run, whatever its size, brightness and contrast.

    A thumbnail with mean 0 and deviation 1, and histograms of edge directions in 8 x 8 cells (Dalal and Triggs,
    Histograms of oriented gradients, 2005), each cell in proportion to the edges around it.

    Args:
        grey: ``(height, width)`` uint8.

    Returns:
        ``(OUTLINE,)`` float32.
    """
    small = _shrink(grey, SIDE)
    thumbnail = _shrink(small, THUMBNAIL).astype(np.float32).ravel()
    thumbnail = (thumbnail - thumbnail.mean()) / (thumbnail.std() + _QUIET_GREY)
    return np.concatenate([thumbnail / THUMBNAIL, _edges(small).ravel() / CELLS])


def _edges(small: NDArray[np.uint8]) -> Vector:
    """Histograms ``(CELLS, CELLS, BINS)`` of edge directions; an edge counts for the two nearest directions."""
    picture = small.astype(np.float32)
    across = cv2.Sobel(picture, cv2.CV_32F, 1, 0, ksize=3)
    down = cv2.Sobel(picture, cv2.CV_32F, 0, 1, ksize=3)
    strength = np.hypot(across, down)
    direction = np.mod(np.arctan2(down, across), np.pi) * (BINS / np.pi)
    first = np.floor(direction)
    second_share = strength * (direction - first)
    planes = np.zeros((SIDE * SIDE, BINS), dtype=np.float32)
    pixels, bins = np.arange(SIDE * SIDE), first.astype(np.int64).ravel() % BINS
    planes[pixels, bins] = (strength - second_share).ravel()
    planes[pixels, (bins + 1) % BINS] = second_share.ravel()
    in_cells = planes.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS, BINS)
    cells = np.asarray(in_cells.mean(axis=(1, 3)))
    around = cv2.GaussianBlur(np.sqrt((cells**2).sum(axis=2)), (3, 3), 0)
    found: Vector = cells / (around[..., None] + _QUIET_GRADIENT)
    return found


def _shrink(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    way = cv2.INTER_AREA if min(grey.shape) >= side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (side, side), interpolation=way), dtype=np.uint8)


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / size if size > 0 else 1.0

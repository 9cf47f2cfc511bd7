"""A radiograph as numbers: statistics that people understand, and a descriptor of its shape.

The descriptor separates chest radiographs from other images. The statistics show drift.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

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
"""Statistics of an image, each with a description for people."""

_SIDE, _CELLS, _BINS, _THUMBNAIL = 64, 8, 8, 24
DESCRIPTOR_LENGTH = _THUMBNAIL**2 + _CELLS**2 * _BINS
"""Numbers in a descriptor."""
_MIN_CONTRAST, _MIN_GRADIENT = 8.0, 4.0
"""Grey levels below which a contrast counts as noise and is not amplified."""


def measure_image(grey: NDArray[np.uint8]) -> dict[str, float]:
    """Compute the statistics of an image.

    Args:
        grey: ``(height, width)`` uint8.

    Returns:
        A value for each of :data:`STATISTICS`.
    """
    height, width = grey.shape
    small = _resize(grey, 128)
    halves = _resize(grey, 32).astype(np.float64)
    left_half, right_half = halves[:, :16], halves[:, :15:-1]
    return {
        "mean": float(small.mean()),
        "contrast": float(small.std()),
        "dark": float(np.mean(small < 16)),
        "bright": float(np.mean(small >= 240)),
        "sharpness": float(cv2.Laplacian(small, cv2.CV_32F).std()),
        "asymmetry": 1 - _correlation(left_half, right_half),
        "aspect": width / height,
        "megapixels": height * width / 1e6,
    }


def describe_image(grey: NDArray[np.uint8]) -> FloatArray:
    """Compute a descriptor of where an image is bright and how its edges run.

    It hardly depends on size, brightness and contrast. It joins a thumbnail with mean 0 and deviation 1, and
    histograms of edge directions in 8 x 8 cells (Dalal and Triggs, Histograms of oriented gradients, 2005), where
    each cell is normalized by the edges around it.

    Args:
        grey: ``(height, width)`` uint8.

    Returns:
        ``(DESCRIPTOR_LENGTH,)`` float32.
    """
    small = _resize(grey, _SIDE)
    thumbnail = _resize(small, _THUMBNAIL).astype(np.float32).ravel()
    thumbnail = (thumbnail - thumbnail.mean()) / (thumbnail.std() + _MIN_CONTRAST)
    return np.concatenate([thumbnail / _THUMBNAIL, _edge_histograms(small).ravel() / _CELLS])


def _edge_histograms(small: NDArray[np.uint8]) -> FloatArray:
    """Histograms ``(cells, cells, bins)`` of edge directions; an edge counts for the two nearest directions."""
    image = small.astype(np.float32)
    horizontal = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3)
    vertical = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3)
    strength = np.hypot(horizontal, vertical)
    direction = np.mod(np.arctan2(vertical, horizontal), np.pi) * (_BINS / np.pi)
    first_bin = np.floor(direction)
    second_share = strength * (direction - first_bin)
    planes = np.zeros((_SIDE * _SIDE, _BINS), dtype=np.float32)
    pixels, bins = np.arange(_SIDE * _SIDE), first_bin.astype(np.int64).ravel() % _BINS
    planes[pixels, bins] = (strength - second_share).ravel()
    planes[pixels, (bins + 1) % _BINS] = second_share.ravel()
    in_cells = planes.reshape(_CELLS, _SIDE // _CELLS, _CELLS, _SIDE // _CELLS, _BINS)
    cells = np.asarray(in_cells.mean(axis=(1, 3)))
    surroundings = cv2.GaussianBlur(np.sqrt((cells**2).sum(axis=2)), (3, 3), 0)
    histograms: FloatArray = cells / (surroundings[..., None] + _MIN_GRADIENT)
    return histograms


def _resize(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    interpolation = cv2.INTER_AREA if min(grey.shape) >= side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (side, side), interpolation=interpolation), dtype=np.uint8)


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm > 0 else 1.0

"""Blur and change of size with the same bits on every processor.

A sum of products in float32 depends on its order and on fused multiplications, which differ between vector
instructions; but a sum of integers below 2^24 is exact in float32 whatever its order. So :func:`gaussian_blur` rounds
both the plane and the kernel to integers. The other functions add whole planes one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.phantom.portable_math import exponential

Plane = npt.NDArray[np.float32]
"""One drawn layer, shape ``(height, width)``, float32."""
Distances = npt.NDArray[np.float64]

# 12 bits of the plane and 6 bits of each of the two kernels: every sum stays below 2^24.
_LEVELS = 1024  # per unit
_HIGHEST = 4095
_KERNEL_SUM = 64

_LINEAR_TAPS, _CUBIC_TAPS = (0, 1), (-1, 0, 1, 2)


def gaussian_blur(plane: Plane, sigma: float) -> Plane:
    """Blur with a Gaussian; the plane is mirrored at its edges.

    Args:
        plane: values in (-4, 4), rounded to multiples of 1/1024; values outside count as these limits.
        sigma: standard deviation in pixels, 5 at most.

    Returns:
        The blurred plane.
    """
    levels = plane * np.float32(_LEVELS)
    np.rint(levels, out=levels)
    np.clip(levels, -_HIGHEST, _HIGHEST, out=levels)
    kernel = _integer_kernel(sigma)
    total = np.asarray(cv2.sepFilter2D(levels, cv2.CV_32F, kernel, kernel), np.float32)
    total *= np.float32(1 / (_LEVELS * _KERNEL_SUM * _KERNEL_SUM))
    return total


def _integer_kernel(sigma: float) -> Plane:
    """Weights of a Gaussian as whole numbers that sum to 64."""
    reach = max(1, round(3 * sigma))
    offsets = np.arange(1, reach + 1, dtype=np.float64)
    weights = exponential(offsets * offsets / (-2 * sigma * sigma))
    side = np.rint(weights * (_KERNEL_SUM / (1 + 2 * np.cumsum(weights)[-1])))
    centre = _KERNEL_SUM - 2 * np.cumsum(side)[-1:]
    return np.concatenate([side[::-1], centre, side]).astype(np.float32)


def block_mean(plane: Plane, step: int) -> Plane:
    """Mean of every square block of pixels.

    Args:
        plane: the plane; where a block reaches over its edge, the last row and column are repeated.
        step: side of a block in pixels.

    Returns:
        One value per block, shape ``(ceil(height / step), ceil(width / step))``.
    """
    height, width = plane.shape
    padded = np.pad(plane, ((0, -height % step), (0, -width % step)), mode="edge")
    rows = padded[::step].copy()
    for first in range(1, step):
        rows += padded[first::step]
    blocks = rows[:, ::step].copy()
    for first in range(1, step):
        blocks += rows[:, first::step]
    blocks *= np.float32(1 / (step * step))
    return blocks


def enlarge(small: Plane, height: int, width: int) -> Plane:
    """Enlarge a plane to a given size with cubic interpolation.

    Args:
        small: the plane.
        height: rows of the result.
        width: columns of the result.

    Returns:
        The plane, shape ``(height, width)``.
    """
    columns = _resample_rows(small.T, width, width / small.shape[1], _CUBIC_TAPS, _cubic_weight)
    return _resample_rows(columns.T, height, height / small.shape[0], _CUBIC_TAPS, _cubic_weight)


def spread_blocks(blocks: Plane, step: int, height: int, width: int) -> Plane:
    """Undo :func:`block_mean` of a smooth plane with linear interpolation.

    Args:
        blocks: one value per block.
        step: side of a block in pixels.
        height: rows of the result.
        width: columns of the result.

    Returns:
        The plane, shape ``(height, width)``.
    """
    columns = _resample_rows(blocks.T, width, step, _LINEAR_TAPS, _linear_weight)
    return _resample_rows(columns.T, height, step, _LINEAR_TAPS, _linear_weight)


def _resample_rows(
    small: Plane, size: int, step: float, taps: tuple[int, ...], weight: Callable[[Distances], Distances]
) -> Plane:
    """Compute each of ``size`` rows from the nearest rows of a plane, one of which stands for ``step`` rows."""
    small = np.ascontiguousarray(small)
    first, *others = _samples(size, step, taps, weight)
    total = np.take(small, first.rows, axis=0, mode="clip")
    total *= first.weights
    rows = np.empty_like(total)
    for sample in others:
        np.take(small, sample.rows, axis=0, out=rows, mode="clip")
        rows *= sample.weights
        total += rows
    return total


class _Sample(NamedTuple):
    """What one tap of an interpolation adds to every row of the result: a row of the small plane times a weight."""

    rows: npt.NDArray[np.intp]
    weights: Plane


@lru_cache(maxsize=32)
def _samples(
    size: int, step: float, taps: tuple[int, ...], weight: Callable[[Distances], Distances]
) -> tuple[_Sample, ...]:
    """One sample per tap; an image has about ten layers of the same size."""
    position = (np.arange(size) + 0.5) / step - 0.5
    before = np.floor(position)
    return tuple(
        _Sample(before.astype(np.intp) + tap, weight(np.abs(position - before - tap)).astype(np.float32)[:, None])
        for tap in taps
    )


def _linear_weight(distance: Distances) -> Distances:
    return 1 - distance


def _cubic_weight(distance: Distances) -> Distances:
    """Weight of a sample in cubic convolution (Keys, 1981), with a slope of -0.75."""
    d = distance
    near = (1.25 * d - 2.25) * d * d + 1
    far = ((-0.75 * d + 3.75) * d - 6) * d + 3
    return np.where(d <= 1, near, far)

"""Elementary functions that give the same bits on every processor.

IEEE 754 prescribes every bit of ``+ - * /``, of the square root, of rounding and of comparisons, and NumPy computes
them one at a time. It prescribes no bit of ``sin``, ``exp`` or ``pow``: their last digit depends on the processor's
vector instructions and on the system's mathematical library. The functions here use the operations of the first kind
only. Their error is far smaller than what an eight-bit pixel shows; each says how large it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Real = TypeVar("Real", np.float32, np.float64)
Numbers = npt.NDArray[np.float64]

_HALF_PI = 1.5707963267948966
_SINE = (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880)
_COSINE = (1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320)
_EXPONENT_BITS = 16


def sine_and_cosine(angle: Numbers | float) -> tuple[Numbers, Numbers]:
    """Sine and cosine of angles up to some hundred radians.

    Args:
        angle: radians.

    Returns:
        The sines and the cosines, float64, of the same shape; the error is below 1e-5.
    """
    x = np.asarray(angle, np.float64)
    quarters = np.rint(x / _HALF_PI)
    rest = x - quarters * _HALF_PI
    square = rest * rest
    odd_part, even_part = rest * _polynomial(square, _SINE), _polynomial(square, _COSINE)
    quadrant = quarters.astype(np.int64)
    swapped = quadrant & 1
    sine: Numbers = np.where(swapped, even_part, odd_part) * (1 - (quadrant & 2))
    cosine: Numbers = np.where(swapped, odd_part, even_part) * (1 - (quadrant + 1 & 2))
    return sine, cosine


def _polynomial(x: Numbers, coefficients: Sequence[float]) -> Numbers:
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def exponential(exponent: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Powers of e; exponents outside [-16, 16] count as these limits.

    Args:
        exponent: exponents, float32 or float64.

    Returns:
        The powers, of the same shape and dtype; the relative error is below 5e-5 up to an exponent of 6.
    """
    # exp(x) = exp(x / 128) ** 128: a short series, because its argument is small, and seven squares.
    x = np.clip(exponent, -16, 16)
    x *= 1 / 128
    powers = x * (1 / 6)
    powers += 1 / 2
    powers *= x
    powers += 1
    powers *= x
    powers += 1
    for _ in range(7):
        powers *= powers
    return powers


def logistic(value: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Logistic function 1 / (1 + exp(-value)).

    Args:
        value: float32 or float64.

    Returns:
        Numbers in (0, 1), of the same shape and dtype; the error is below 1e-5.
    """
    denominator = exponential(-value)
    denominator += 1
    return np.divide(1, denominator, out=denominator)


def power(base: Numbers | float, exponent: float) -> Numbers:
    """Raise numbers that are not negative to a power.

    Args:
        base: at least 0.
        exponent: at least 0; it is rounded to a multiple of 2^-16.

    Returns:
        The powers, float64, of the same shape; the relative error is below 1e-4 for a base of at least 0.001.
    """
    root = np.asarray(base, np.float64)
    bits = round(exponent * 2**_EXPONENT_BITS)
    result = np.ones_like(root)
    for _ in range(bits >> _EXPONENT_BITS):
        result = result * root
    # The bits behind the binary point stand for the square root, the fourth root, the eighth root and so on.
    for place in range(_EXPONENT_BITS - 1, -1, -1):
        root = np.sqrt(root)
        if bits >> place & 1:
            result = result * root
    return result


def interpolate(x: Numbers | float, positions: Sequence[float], values: Sequence[float]) -> Numbers:
    """Interpolate linearly between given points; beyond the first and the last the value stays the same.

    Args:
        x: where to interpolate.
        positions: positions of the points, ascending.
        values: values of the points.

    Returns:
        The values at ``x``, float64, of the same shape.
    """
    at = np.asarray(x, np.float64)
    total = np.full_like(at, values[0])
    for left, right, first, last in zip(positions[:-1], positions[1:], values[:-1], values[1:], strict=True):
        total = total + (np.clip(at, left, right) - left) * ((last - first) / (right - left))
    return total

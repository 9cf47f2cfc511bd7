"""Random numbers that are the same on every processor and with every NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

Item = TypeVar("Item")
Numbers = npt.NDArray[np.float64]
Shape = int | tuple[int, ...]

_ULP = 1 / 2**53
_EVEN_BYTES = np.uint64(0x00FF00FF00FF00FF)
_SUM_IN_THE_TOP = np.uint64(0x0001000100010001)  # a factor that adds four numbers of 16 bits into the upper one
_BYTES_MEAN = 8 * 255 / 2
_BYTES_DEVIATION = math.sqrt(8 * (256 * 256 - 1) / 12)


class RandomStream:
    """Random numbers from the raw integers of PCG64.

    NumPy promises the stream of a bit generator for good, but not that of ``Generator.normal`` and its like; these
    also compute with ``exp`` and ``log1p``, whose last digit differs between machines. Here integers become numbers
    by additions and multiplications alone.
    """

    def __init__(self, *seed: int) -> None:
        """Begin a stream.

        Args:
            seed: integers of at least 0 that name the stream.
        """
        self._bits = np.random.PCG64(seed)

    @overload
    def uniform(self, low: float = ..., high: float = ...) -> float: ...
    @overload
    def uniform(self, low: float, high: float, shape: Shape) -> Numbers: ...
    def uniform(self, low: float = 0.0, high: float = 1.0, shape: Shape | None = None) -> float | Numbers:
        """Draw from a uniform distribution.

        Args:
            low: smallest number.
            high: the numbers stay below it.
            shape: shape of the array to draw; None draws one number.

        Returns:
            A number, or float64 numbers of that shape.
        """
        if shape is None:
            return low + (high - low) * ((self._bits.random_raw() >> 11) * _ULP)
        fractions = (self._bits.random_raw(shape) >> np.uint64(11)).astype(np.float64) * _ULP
        return low + (high - low) * fractions

    @overload
    def normal(self, mean: float, deviation: float) -> float: ...
    @overload
    def normal(self, mean: float, deviation: float, shape: Shape) -> Numbers: ...
    def normal(self, mean: float, deviation: float, shape: Shape | None = None) -> float | Numbers:
        """Draw from a distribution that is nearly normal: the sum of eight uniform bytes.

        Args:
            mean: mean of the distribution.
            deviation: standard deviation; every number lies within five of them from the mean.
            shape: shape of the array to draw; None draws one number.

        Returns:
            A number, or float64 numbers of that shape.
        """
        raw = self._bits.random_raw(1 if shape is None else shape)
        pairs = (raw & _EVEN_BYTES) + (raw >> np.uint64(8) & _EVEN_BYTES)
        pairs *= _SUM_IN_THE_TOP
        sums = (pairs >> np.uint64(48)).astype(np.float64)
        numbers = mean + (deviation / _BYTES_DEVIATION) * (sums - _BYTES_MEAN)
        return float(numbers[0]) if shape is None else numbers

    def integer(self, low: int, high: int) -> int:
        """Draw an integer.

        Args:
            low: smallest integer.
            high: one more than the largest integer, at most 2^32 above ``low``.

        Returns:
            The integer.
        """
        return low + ((self._bits.random_raw() >> 32) * (high - low) >> 32)

    def choice(self, items: Sequence[Item]) -> Item:
        """Draw one of several items, all with the same chance.

        Args:
            items: what to draw from.

        Returns:
            The item.
        """
        return items[self.integer(0, len(items))]

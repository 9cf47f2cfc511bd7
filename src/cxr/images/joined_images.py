"""Arrays of images in several files, read as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class JoinedImages:
    """Several arrays of images, usually memory-mapped, that are read as one: only what is asked for is loaded.

    Attributes:
        shape: ``(images, height, width, planes)`` of all arrays together.
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, arrays: Sequence[NDArray[np.uint8]]) -> None:
        """Remember the arrays; no image is read yet.

        Args:
            arrays: at least one array ``(images, height, width, planes)``, uint8; they differ in the first number only,
                which may be 0.
        """
        self._arrays = tuple(arrays)
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])
        self._length = int(self._starts[-1])
        self.shape = (self._length, *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: int | slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read one image or several.

        Args:
            rows: a row number, a range of them, or ``(m,)`` row numbers in any order.

        Returns:
            The image ``(height, width, planes)``, or the images ``(m, height, width, planes)``.

        Raises:
            IndexError: if there is no such row.
        """
        if isinstance(rows, slice):
            return self[np.arange(*rows.indices(len(self)))]
        numbers = np.asarray(rows, dtype=np.int64)
        if np.any((numbers < 0) | (numbers >= len(self))):
            raise IndexError(f"expected rows from 0 to {len(self) - 1}, received rows={rows}")
        owners = np.searchsorted(self._starts, numbers, side="right") - 1  # an empty array owns no row
        if numbers.ndim == 0:
            image: NDArray[np.uint8] = self._arrays[owners][numbers - self._starts[owners]]
            return image
        images = np.empty((len(numbers), *self.shape[1:]), dtype=np.uint8)
        for owner in np.unique(owners):
            mask = owners == owner
            images[mask] = self._arrays[owner][numbers[mask] - self._starts[owner]]
        return images

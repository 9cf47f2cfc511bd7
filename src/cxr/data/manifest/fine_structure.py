"""The fine structure of an image, which tells whether two images with near hashes are the same one."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.cpu import available_cores

FINE_STRUCTURE_SIDE = 64
DIAGONALS = 24
"""Diagonals of the cosine transform, lowest frequencies first, that bound a correlation: 300 of 4,096 numbers. These
hold seven tenths of the fine structure of a radiograph."""

_BLUR = 3.0
_BYTES = 2 * FINE_STRUCTURE_SIDE**2
_LOW_FREQUENCIES = np.flatnonzero(np.add.outer(*[np.arange(FINE_STRUCTURE_SIDE)] * 2) < DIAGONALS)
BYTES_ON_DISK = _BYTES + 4 * (len(_LOW_FREQUENCIES) + 1)
"""What :class:`FineStructures` writes for each image."""
_BOUNDED = 2**12
"""Pairs whose bounds are one task of a thread."""
_IN_CACHE = 2**8
"""Pairs whose numbers fit in the cache of a core."""


def fine_structure(grey: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Reduce an image to its fine structure (ribs, vessels, marks), without brightness and contrast.

    The coarse structure of all chests is alike. What is left after a blurred copy is subtracted differs between images.

    Args:
        grey: uint8 ``(height, width)``.

    Returns:
        float16 ``(4096,)``: 64x64 pixels as a vector of length 1, or all 0 for an image of one grey level.
    """
    small = cv2.resize(grey, (FINE_STRUCTURE_SIDE, FINE_STRUCTURE_SIDE), interpolation=cv2.INTER_AREA)
    detail = small.astype(np.float32)
    detail -= cv2.GaussianBlur(detail, (0, 0), _BLUR)
    length = float(np.linalg.norm(detail))
    unit_vector: NDArray[np.float16] = (detail.ravel() / max(length, 1e-6)).astype(np.float16)
    return unit_vector


def low_frequencies(structure: NDArray[np.float16]) -> NDArray[np.float32]:
    """Reduce a fine structure to numbers whose products bound correlations from above.

    The cosine transform keeps scalar products. So the correlation of two structures is the product of their low
    frequencies plus that of the rest, which is at most the product of the lengths of the rest (Cauchy and Schwarz).

    Args:
        structure: float16 ``(4096,)``, from :func:`fine_structure`.

    Returns:
        float32 ``(301,)``: the low frequencies, and the length of the rest. No correlation of two structures exceeds
        the scalar product of two such vectors by more than rounding.
    """
    plane = structure.astype(np.float32).reshape(FINE_STRUCTURE_SIDE, FINE_STRUCTURE_SIDE)
    low = cv2.dct(plane).ravel()[_LOW_FREQUENCIES]
    rest = max(0.0, float(np.square(plane, dtype=np.float64).sum() - np.square(low, dtype=np.float64).sum()))
    return np.append(low, np.float32(np.sqrt(rest)))


class FineStructures:
    """Fine structures of images: each is computed once, and kept on disk, so that memory does not grow with them.

    The temporary files are in the folder of ``TMPDIR``. They take 9.2 KiB of disk for each image that was asked for.

    Args:
        count: number of images.
        load: gives the grey image, uint8 ``(height, width)``, of a position; called from several threads.
        workers: threads; None for one per core.
        progress: whether to show a progress bar on stderr.
    """

    def __init__(
        self, count: int, load: Callable[[int], NDArray[np.uint8]], *, workers: int | None, progress: bool
    ) -> None:
        self._load = load
        self._is_computed = np.zeros(count, dtype=bool)
        self._file = TemporaryFile(buffering=0)  # noqa: SIM115 - closed by __exit__
        with TemporaryFile() as file:  # the mapping keeps it
            shape = (max(1, count), len(_LOW_FREQUENCIES) + 1)
            self._low = np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
        self._pool = ThreadPoolExecutor(workers or available_cores())
        self._bar = tqdm(total=0, desc="near duplicates", unit="image", disable=None if progress else True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._bar.close()
        self._file.close()

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Read the structures of images, and compute those that are asked for the first time.

        Args:
            positions: ``(n,)``, positions of the images, each once.

        Returns:
            float16 ``(n, 4096)``.
        """
        self._compute_new(positions)
        content = b"".join(os.pread(self._file.fileno(), _BYTES, position * _BYTES) for position in positions.tolist())
        return np.frombuffer(content, dtype=np.float16).reshape(-1, FINE_STRUCTURE_SIDE**2)

    def correlation_bounds(self, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute what the correlations of pairs do not exceed, as :func:`low_frequencies` bounds them.

        Args:
            pairs: ``(n, 2)``, positions of images; structures that are asked for the first time are computed.

        Returns:
            float32 ``(n,)``.
        """
        self._compute_new(np.unique(pairs))
        blocks = [pairs[start : start + _BOUNDED] for start in range(0, len(pairs), _BOUNDED)]
        return np.concatenate([np.empty(0, dtype=np.float32), *self._pool.map(self._bound, blocks)])

    def _bound(self, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
        bounds = np.empty(len(pairs), dtype=np.float32)
        for start in range(0, len(pairs), _IN_CACHE):
            rows = slice(start, start + _IN_CACHE)
            first, second = (self._low.take(pairs[rows, side], axis=0) for side in (0, 1))
            bounds[rows] = np.einsum("ij,ij->i", first, second)
        return bounds

    def _compute_new(self, positions: NDArray[np.int64]) -> None:
        new = positions[~self._is_computed[positions]]
        self._bar.total = (self._bar.total or 0) + len(new)
        for _ in self._pool.map(self._compute, new.tolist()):
            self._bar.update()
        self._is_computed[new] = True

    def _compute(self, position: int) -> None:
        structure = fine_structure(self._load(position))
        os.pwrite(self._file.fileno(), structure.tobytes(), position * _BYTES)
        self._low[position] = low_frequencies(structure)

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

_BLUR = 3.0
_BYTES = 2 * FINE_STRUCTURE_SIDE**2


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


class FineStructures:
    """Fine structures of images: each is computed once, and kept on disk, so that memory does not grow with them.

    The temporary file is in the folder of ``TMPDIR``. It takes 8 KiB of disk for each image that was asked for.

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
        new = positions[~self._is_computed[positions]]
        self._bar.total = (self._bar.total or 0) + len(new)
        for _ in self._pool.map(self._compute, new.tolist()):
            self._bar.update()
        self._is_computed[new] = True
        content = b"".join(os.pread(self._file.fileno(), _BYTES, position * _BYTES) for position in positions.tolist())
        return np.frombuffer(content, dtype=np.float16).reshape(-1, FINE_STRUCTURE_SIDE**2)

    def _compute(self, position: int) -> None:
        os.pwrite(self._file.fileno(), fine_structure(self._load(position)).tobytes(), position * _BYTES)

"""Hash of what an image shows, which finds a copy even if its file differs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

HASH_SIDE = 32


def perceptual_hash(grey: NDArray[np.uint8]) -> str:
    """Hash an image by its lowest frequencies (pHash, Zauner 2010).

    Args:
        grey: uint8 ``(height, width)``.

    Returns:
        64 bits as 16 hexadecimal digits; the hashes of re-encoded or resized copies differ in a few bits.
    """
    frequencies = cv2.dct(shrink(grey, HASH_SIDE))[:8, :8].ravel()
    # The first coefficient is the mean brightness. It does not count for the median that splits the others.
    bits = frequencies > np.median(frequencies[1:])
    return np.packbits(bits).tobytes().hex()


def shrink(grey: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Shrink an image to a square by averaging.

    Args:
        grey: uint8 ``(height, width)``.
        side: side of the square in pixels.

    Returns:
        float32 ``(side, side)``, grey levels 0 to 255.
    """
    small: NDArray[np.float32] = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small

"""Hash of what a picture shows, so that a copy is found although its file differs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

HASH_SIDE = 32


def perceptual_hash(grey: NDArray[np.uint8]) -> str:
    """Hash a picture by the signs of its coarsest cosine waves (pHash, Zauner 2010).

    Args:
        grey: uint8 ``(height, width)``.

    Returns:
        64 bits as 16 hexadecimal digits; re-encoded or resized copies differ in a few bits.
    """
    small = shrink(grey, HASH_SIDE)
    waves = cv2.dct(small)[:8, :8].ravel()
    # The first coefficient is the mean brightness: it is left out of the median that splits the others.
    bits = waves > np.median(waves[1:])
    return np.packbits(bits).tobytes().hex()


def shrink(grey: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Shrink a picture to a square by averaging.

    Args:
        grey: uint8 ``(height, width)``.
        side: pixels.

    Returns:
        float32 ``(side, side)``, grey levels 0 to 255.
    """
    small: NDArray[np.float32] = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small

"""Hash of what an image shows, which finds a copy even if its file differs.

The hash decides which images are copies, and so which split they are in. It is therefore computed in whole numbers: a
sum of floating-point numbers has another last bit on another processor, and one such bit can turn a bit of the hash.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

HASH_SIDE = 32

_LOW_FREQUENCIES = 8
_COSINE_ONE = 2**20  # no cosine of the table lies near the middle between two multiples of 2^-20

Integers = NDArray[np.int64]


def perceptual_hash(grey: NDArray[np.uint8]) -> str:
    """Hash an image by its lowest frequencies (pHash, Zauner 2010).

    Args:
        grey: uint8 ``(height, width)``.

    Returns:
        64 bits as 16 hexadecimal digits, the same on every processor; the hashes of re-encoded or resized copies
        differ in a few bits.
    """
    frequencies = (_COSINES @ shrink(grey, HASH_SIDE) @ _COSINES.T).ravel()
    # The first coefficient is the mean brightness. It does not count for the median that splits the others.
    bits = frequencies > np.median(frequencies[1:])
    return np.packbits(bits).tobytes().hex()


def shrink(grey: NDArray[np.uint8], side: int) -> Integers:
    """Shrink an image to a square by averaging.

    Args:
        grey: uint8 ``(height, width)``.
        side: side of the square in pixels.

    Returns:
        int64 ``(side, side)``, grey levels 0 to 255, the means rounded half to even.
    """
    sums = _band_sums(_band_sums(grey, side).T, side).T
    return np.rint(sums / grey.size).astype(np.int64)


def _band_sums(rows: NDArray[np.uint8] | Integers, bands: int) -> Integers:
    """Sum the rows of each of equal bands, times the number of bands.

    A row that lies in two bands counts for each by its share, which times ``bands`` is a whole number.
    """
    edges = np.arange(bands + 1) * len(rows)
    first, share = edges // bands, edges % bands
    whole = np.stack([rows[start:end].sum(axis=0, dtype=np.int64) for start, end in pairwise(first.tolist())])
    at_edges = share[:, None] * rows[np.minimum(first, len(rows) - 1)].astype(np.int64)
    return bands * whole - at_edges[:-1] + at_edges[1:]


def _cosine_table() -> Integers:
    """First rows of the discrete cosine transform (type II), in multiples of 2^-20 of their amplitude."""
    table = [
        [round(_COSINE_ONE * math.cos(math.pi * k * (2 * n + 1) / (2 * HASH_SIDE))) for n in range(HASH_SIDE)]
        for k in range(_LOW_FREQUENCIES)
    ]
    table[0] = [round(_COSINE_ONE * math.sqrt(0.5))] * HASH_SIDE
    return np.array(table, dtype=np.int64)


_COSINES = _cosine_table()

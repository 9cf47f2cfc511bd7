"""Finds near duplicates: the same image under two names, also after re-encoding or resizing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

FINE_STRUCTURE_SIDE = 64

MIN_CORRELATION = 0.9
"""Re-encoded, resized or brightened copies reach 0.96 to 1. Of all 17 million pairs of different images of the
Kermany set, the most similar pair reaches 0.85 and the next one 0.79."""

_BLUR = 3.0
_BLOCK = 512


def find_hash_neighbours(hashes: Sequence[str], distance: int) -> NDArray[np.int64]:
    """Find the pairs of hashes that differ in few bits.

    Args:
        hashes: ``n`` hashes of :func:`cxr.images.perceptual_hash.perceptual_hash`.
        distance: largest number of differing bits, of 64; for re-encoded, resized or brightened copies it is 0 to 6.

    Returns:
        int64 ``(pairs, 2)``: positions, the smaller first, sorted.
    """
    codes = np.array([int(code, 16) for code in hashes], dtype=np.uint64)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(codes), _BLOCK):
        rows = codes[start : start + _BLOCK, None]
        near = np.argwhere(np.bitwise_count(rows ^ codes[None, start:]) <= distance) + start
        pairs.append(near[near[:, 0] < near[:, 1]])
    return np.concatenate(pairs)


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


def find_near_duplicates(
    hashes: Sequence[str],
    load: Callable[[int], NDArray[np.uint8]],
    *,
    distance: int,
    correlation: float = MIN_CORRELATION,
    workers: int | None = None,
    progress: bool = False,
) -> list[tuple[int, int]]:
    """Find pairs that show the same image: near by hash, then confirmed by the correlation of their fine structure.

    Args:
        hashes: ``n`` hashes of :func:`cxr.images.perceptual_hash.perceptual_hash`.
        load: gives the grey image, uint8 ``(height, width)``, of a position; called for candidates only,
            from several threads.
        distance: largest number of differing bits of a candidate.
        correlation: smallest correlation of the fine structure of a pair.
        workers: threads; None for one per core.
        progress: whether to show a progress bar on stderr.

    Returns:
        Positions of the confirmed pairs, the smaller first, sorted.
    """
    candidates = find_hash_neighbours(hashes, distance)
    members, rows = np.unique(candidates, return_inverse=True)
    rows = rows.reshape(candidates.shape)
    structures = np.zeros((len(members), FINE_STRUCTURE_SIDE**2), dtype=np.float16)

    def fill(row: int) -> None:
        structures[row] = fine_structure(load(int(members[row])))

    hidden = None if progress else True
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        filled = pool.map(fill, range(len(members)))
        for _ in tqdm(filled, total=len(members), desc="near duplicates", unit="image", disable=hidden):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    confirmed: list[tuple[int, int]] = []
    for start in range(0, len(candidates), _BLOCK):
        first, second = (structures[rows[start : start + _BLOCK, side]].astype(np.float32) for side in (0, 1))
        is_same = np.einsum("ij,ij->i", first, second) >= correlation
        confirmed += [(int(low), int(high)) for low, high in candidates[start : start + _BLOCK][is_same]]
    return confirmed

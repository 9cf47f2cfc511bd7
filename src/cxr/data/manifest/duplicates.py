"""Exact and near duplicates: the same picture under two names, also after re-encoding or resizing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

THUMBNAIL_SIDE = 64
NEAR_DISTANCE = 8
"""Bits of 64 in which hashes may differ: those of re-encoded, resized or brightened copies do in 0 to 6."""

NEAR_CORRELATION = 0.9
"""Re-encoded, resized or brightened copies reach 0.96 to 1. Of all 17 million pairs of different films of the
Kermany set, the most alike one reaches 0.85 and the next one 0.79."""

_BLUR = 3.0
_BLOCK = 512


def near_candidates(hashes: Sequence[str], distance: int = NEAR_DISTANCE) -> NDArray[np.int64]:
    """Find the pairs of hashes that differ in few bits.

    Args:
        hashes: ``n`` hashes of :func:`cxr.images.perceptual_hash.perceptual_hash`.
        distance: largest number of differing bits.

    Returns:
        int64 ``(pairs, 2)``: positions, the smaller first, sorted.
    """
    codes = np.array([int(code, 16) for code in hashes], dtype=np.uint64)
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(codes), _BLOCK):
        rows = codes[start : start + _BLOCK, None]
        near = np.argwhere(np.bitwise_count(rows ^ codes[None, start:]) <= distance) + start
        found.append(near[near[:, 0] < near[:, 1]])
    return np.concatenate(found)


def thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Shrink a picture to its fine structure (ribs, vessels, marks), free of brightness and contrast.

    All chests look alike in the large; what is left after taking away a blurred copy is each picture's own.

    Args:
        grey: uint8 ``(height, width)``.

    Returns:
        float16 ``(4096,)``, 64x64 pixels of length 1, or all 0 for a picture of one grey level.
    """
    small = cv2.resize(grey, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= cv2.GaussianBlur(small, (0, 0), _BLUR)
    length = float(np.linalg.norm(small))
    fine: NDArray[np.float16] = (small.ravel() / max(length, 1e-6)).astype(np.float16)
    return fine


def unite(count: int, pairs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Join items into groups so that the two of every pair are in one group (union-find).

    Args:
        count: number of items.
        pairs: positions that belong together.

    Returns:
        int64 ``(count,)``: for each item the smallest position in its group.
    """
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return np.array([root(item) for item in range(count)], dtype=np.int64)


def near_pairs(
    hashes: Sequence[str],
    load: Callable[[int], NDArray[np.uint8]],
    *,
    distance: int = NEAR_DISTANCE,
    correlation: float = NEAR_CORRELATION,
    workers: int | None = None,
    progress: bool = False,
) -> list[tuple[int, int]]:
    """Find pairs that show the same picture: near by hash, then confirmed pixel by pixel on thumbnails.

    Args:
        hashes: ``n`` hashes of :func:`cxr.images.perceptual_hash.perceptual_hash`.
        load: gives the grey picture, uint8 ``(height, width)``, of a position; called for candidates only,
            from several threads.
        distance: largest number of differing bits of a candidate.
        correlation: smallest correlation of the thumbnails' fine structure.
        workers: threads; None for one per core.
        progress: whether to show a progress bar on stderr.

    Returns:
        Positions of the confirmed pairs, the smaller first, sorted.
    """
    candidates = near_candidates(hashes, distance)
    members, rows = np.unique(candidates, return_inverse=True)
    rows = rows.reshape(candidates.shape)
    thumbnails = np.zeros((len(members), THUMBNAIL_SIDE**2), dtype=np.float16)

    def fill(row: int) -> None:
        thumbnails[row] = thumbnail(load(int(members[row])))

    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        filled = pool.map(fill, range(len(members)))
        for _ in tqdm(
            filled, total=len(members), desc="near duplicates", unit="image", disable=None if progress else True
        ):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    confirmed: list[tuple[int, int]] = []
    for start in range(0, len(candidates), _BLOCK):
        first, second = (thumbnails[rows[start : start + _BLOCK, side]].astype(np.float32) for side in (0, 1))
        same = np.einsum("ij,ij->i", first, second) >= correlation
        confirmed += [(int(low), int(high)) for low, high in candidates[start : start + _BLOCK][same]]
    return confirmed

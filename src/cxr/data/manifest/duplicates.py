"""Finds near duplicates: the same image under two names, also after re-encoding or resizing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from cxr.data.manifest.fine_structure import FineStructures
from cxr.data.manifest.hash_neighbours import Codes, Pairs, near_pairs

MIN_CORRELATION = 0.9
"""Re-encoded, resized or brightened copies reach 0.96 to 1. Of all 17 million pairs of different images of the
Kermany set, the most similar pair reaches 0.85 and the next one 0.79."""

_BLOCK = 2**16
"""Candidates in memory at once."""
_ROUNDING = 1e-3
"""Far more than the rounding of a bound."""
_STRUCTURES = 512
"""Images, and pairs of images, whose fine structures are in memory at once: 8 MiB for 512 of them as float32."""


def find_near_duplicates(
    hashes: Codes,
    load: Callable[[int], NDArray[np.uint8]],
    *,
    distance: int,
    correlation: float = MIN_CORRELATION,
    workers: int | None = None,
    progress: bool = False,
) -> list[tuple[int, int]]:
    """Find pairs that show the same image: near by hash, then confirmed by the correlation of their fine structure.

    Of images with the same hash and the same fine structure, such as copies of a nearly black one, the first one stands
    for all: the others are paired with it, and not with one another. So their pairs do not grow with the square.

    Args:
        hashes: uint64 ``(n,)``, from :func:`cxr.data.manifest.hash_neighbours.read_codes`.
        load: gives the grey image, uint8 ``(height, width)``, of a position; called once for each candidate,
            from several threads.
        distance: largest number of differing bits of a candidate.
        correlation: smallest correlation of the fine structure of a pair.
        workers: threads; None for one per core.
        progress: whether to show a progress bar on stderr.

    Returns:
        Positions of confirmed pairs, the smaller first, sorted. A chain of pairs connects all copies of an image.
    """
    codes, code_of = np.unique(hashes, return_inverse=True)
    confirmed: list[tuple[int, int]] = []
    with FineStructures(len(hashes), load, workers=workers, progress=progress) as structures:
        first_of = _first_of_equal_images(code_of, structures)
        firsts = np.flatnonzero(first_of == np.arange(len(first_of)))
        copies = np.flatnonzero(first_of != np.arange(len(first_of)))
        confirmed += _confirm(np.column_stack([first_of[copies], copies]), structures, correlation)
        for pairs in _candidates(codes, code_of[firsts], distance):
            confirmed += _confirm(np.sort(firsts[pairs], axis=1), structures, correlation)
    return sorted(confirmed)


def _first_of_equal_images(code_of: NDArray[np.int64], structures: FineStructures) -> NDArray[np.int64]:
    """For each image the first one with the same hash and the same fine structure: itself if there is none."""
    first_of = np.arange(len(code_of))
    by_code = np.argsort(code_of, kind="stable")
    sharing = by_code[np.bincount(code_of)[code_of[by_code]] > 1]
    code, firsts = -1, dict[bytes, int]()
    for start in range(0, len(sharing), _STRUCTURES):
        images = sharing[start : start + _STRUCTURES]
        for image, structure in zip(images.tolist(), structures.read(images), strict=True):
            if code_of[image] != code:
                code, firsts = int(code_of[image]), {}
            first_of[image] = firsts.setdefault(hashlib.sha256(structure.tobytes()).digest(), image)
    return first_of


def _candidates(codes: Codes, code_of: NDArray[np.int64], distance: int) -> Iterator[Pairs]:
    """Pairs of images with the same hash or near hashes, as positions in ``code_of``; each pair once."""
    by_code = np.argsort(code_of, kind="stable")
    counts = np.bincount(code_of, minlength=len(codes))
    starts = np.cumsum(counts) - counts
    shared = np.flatnonzero(counts > 1)
    for first, second in _products(starts, counts, np.column_stack([shared, shared])):
        yield by_code[np.column_stack([first, second])[first < second]]
    for pairs in near_pairs(codes, distance):
        for first, second in _products(starts, counts, pairs):
            yield by_code[np.column_stack([first, second])]


def _products(
    starts: NDArray[np.int64], counts: NDArray[np.int64], pairs: Pairs
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of a member of one run and a member of another, for each pair of runs, a block at a time."""
    first, second = pairs.T
    ends = np.cumsum(counts[first] * counts[second])
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _BLOCK):
        number = np.arange(start, min(start + _BLOCK, total))
        pair = np.searchsorted(ends, number, side="right")
        row, column = np.divmod(ends[pair] - 1 - number, counts[second[pair]])
        yield starts[first[pair]] + row, starts[second[pair]] + column


def _confirm(pairs: Pairs, structures: FineStructures, correlation: float) -> list[tuple[int, int]]:
    """The pairs whose fine structures correlate. Those that cannot, by their low frequencies, are left out first."""
    confirmed: list[tuple[int, int]] = []
    pairs = pairs[structures.correlation_bounds(pairs) >= correlation - _ROUNDING]
    for start in range(0, len(pairs), _STRUCTURES):
        block = pairs[start : start + _STRUCTURES]
        images, rows = np.unique(block, return_inverse=True)
        vectors = structures.read(images).astype(np.float32)
        first, second = (vectors[rows.reshape(block.shape)[:, side]] for side in (0, 1))
        is_same = np.einsum("ij,ij->i", first, second) >= correlation
        confirmed += [(int(low), int(high)) for low, high in block[is_same]]
    return confirmed

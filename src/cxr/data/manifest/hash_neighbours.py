"""Finds the pairs of 64-bit hashes that differ in few bits, without comparing all hashes with one another.

The bits are cut into parts, and each part gets a radius, so that the sum of all ``radius + 1`` is ``distance + 1``. Two
hashes that differ by more than the radius in every part differ in more than ``distance`` bits. So near hashes agree up
to the radius in at least one part (the pigeonhole principle). The hashes are sorted by each part in turn, and each is
compared only with those whose part is near its own (multi-index hashing: Norouzi, Punjani and Fleet 2014, "Fast exact
search in Hamming space with multi-index hashing").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from math import comb

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64

Codes = NDArray[np.uint64]
Pairs = NDArray[np.int64]

_PART_COUNTS = range(3, 9)
"""The values of a part are the index of a table: 22 bits at most, or 32 MiB."""
_LOOKUP_COST = 3
"""Time to look up one value of a part, in comparisons of two hashes."""
_BLOCK = 2**16
"""Hashes that are compared with others at once: their arrays fit in the cache of a core."""
_YIELDED = 2**14
"""Pairs from which on they are given to the caller."""


@dataclass(frozen=True)
class HashPart:
    """Consecutive bits of a hash.

    Attributes:
        shift: number of bits below the part.
        width: number of bits; 0 for a part that all hashes have in common.
        radius: largest number of differing bits of two parts that are near.
    """

    shift: int
    width: int
    radius: int

    def values(self, codes: Codes) -> Codes:
        """Take the part of each hash.

        Args:
            codes: uint64 ``(n,)``.

        Returns:
            uint64 ``(n,)``, below ``2 ** width``.
        """
        return (codes >> np.uint64(self.shift)) & np.uint64(2**self.width - 1)

    @property
    def differences(self) -> int:
        """Number of differences between two parts that are near."""
        return sum(comb(self.width, bits) for bits in range(self.radius + 1))

    def masks(self) -> Iterator[int]:
        """List the differences between two parts that are near.

        Yields:
            Numbers of ``width`` bits, at most ``radius`` of them 1; the first number is 0.
        """
        for count in range(min(self.radius, self.width) + 1):
            for bits in combinations(range(self.width), count):
                yield sum(1 << bit for bit in bits)


def read_codes(hashes: Iterable[str]) -> Codes:
    """Read hashes as numbers.

    Args:
        hashes: ``n`` hashes of :func:`cxr.images.perceptual_hash.perceptual_hash`.

    Returns:
        uint64 ``(n,)``.
    """
    iterator = iter(hashes)
    texts = iter(lambda: "".join(islice(iterator, _BLOCK)), "")
    blocks = [np.frombuffer(bytes.fromhex(text), dtype=">u8").astype(np.uint64) for text in texts]
    return np.concatenate([np.empty(0, dtype=np.uint64), *blocks])


def divide_hash(count: int, distance: int) -> list[HashPart]:
    """Cut the bits of a hash into parts of about equal width and radius.

    Args:
        count: number of hashes; decides between few wide and many narrow parts.
        distance: largest number of differing bits of near hashes.

    Returns:
        The parts that take the least time: one without bits, which means to compare all hashes with one another, if
        there are few of them or the distance is large.
    """
    divisions = [[HashPart(0, 0, 0)], *(_equal_parts(number, distance) for number in _PART_COUNTS)]
    return min(divisions, key=lambda parts: count_comparisons(count, parts))


def count_comparisons(count: int, parts: Sequence[HashPart]) -> float:
    """Estimate how often two hashes of many random ones are compared.

    Args:
        count: number of hashes.
        parts: the parts that they are cut into.

    Returns:
        Number of comparisons, each look-up counted as the comparisons that it takes the time of.
    """
    return count * sum(part.differences * (_LOOKUP_COST + 0.5**part.width * count / 2) for part in parts)


def near_pairs(codes: Codes, distance: int) -> Iterator[Pairs]:
    """Find the pairs of hashes that differ in few bits.

    Args:
        codes: uint64 ``(n,)``. Equal hashes are pairs, too: their number grows with the square of the copies.
        distance: largest number of differing bits, 0 to 64.

    Yields:
        int64 ``(pairs, 2)``: positions, the smaller first; each pair once, in no order.
    """
    parts = divide_hash(len(codes), distance)
    collected: list[Pairs] = []
    for number, part in enumerate(parts):
        for pairs in _pairs_near_in_part(codes, part, distance):
            difference = codes[pairs[:, 0]] ^ codes[pairs[:, 1]]
            is_new = np.ones(len(pairs), dtype=bool)
            for earlier in parts[:number]:
                is_new &= np.bitwise_count(earlier.values(difference)) > earlier.radius
            collected.append(np.sort(pairs[is_new], axis=1))
            if sum(map(len, collected)) >= _YIELDED:
                yield np.concatenate(collected)
                collected = []
    if collected:
        yield np.concatenate(collected)


def _equal_parts(number: int, distance: int) -> list[HashPart]:
    parts, shift = [], 0
    for position in range(number):
        width = HASH_BITS // number + (position < HASH_BITS % number)
        radius = (distance + 1) // number + (position < (distance + 1) % number) - 1
        if radius >= 0:
            parts.append(HashPart(shift, width, radius))
        shift += width
    return parts


def _pairs_near_in_part(codes: Codes, part: HashPart, distance: int) -> Iterator[Pairs]:
    """Pairs of near hashes whose parts are near, as positions in any order."""
    values = part.values(codes).astype(np.int64)
    order = np.argsort(values, kind="stable")
    values, codes = values[order], codes[order]
    # Hashes of one value are neighbours now: those of value v are at starts[v] to starts[v + 1].
    starts = np.concatenate([[0], np.cumsum(np.bincount(values, minlength=2**part.width))])
    for mask in part.masks():
        for first in range(0, len(codes), _BLOCK):
            block = values[first : first + _BLOCK]
            # Of two values that differ by the mask, the smaller one looks up the larger one.
            rows = first + np.flatnonzero(block <= block ^ mask)
            partner = values[rows] ^ mask
            low = starts[partner] if mask else rows + 1
            counts = starts[partner + 1] - low
            has_partner = counts > 0
            rows, low, counts = rows[has_partner], low[has_partner], counts[has_partner]
            if len(rows):
                yield from _compare_runs(codes, order, rows, low, counts, distance)


def _compare_runs(
    codes: Codes,
    order: NDArray[np.int64],
    rows: NDArray[np.int64],
    low: NDArray[np.int64],
    counts: NDArray[np.int64],
    distance: int,
) -> Iterator[Pairs]:
    """Compare the hash of each row with the ``counts`` hashes from position ``low``."""
    longest = int(counts.max())
    # The longest runs come first, so that those that are not at their end are always the first ones.
    by_length = np.argsort((longest - counts).astype(np.min_scalar_type(longest)), kind="stable")
    rows, low = rows[by_length], low[by_length]
    row_codes = codes[rows]
    lengths = np.bincount(counts, minlength=longest + 1)
    still_running = len(rows) - np.cumsum(lengths)
    for step in range(longest):
        active = int(still_running[step])
        others = low[:active] + step
        near = np.flatnonzero(np.bitwise_count(row_codes[:active] ^ codes[others]) <= distance)
        if len(near):
            yield np.column_stack([order[rows[near]], order[others[near]]])

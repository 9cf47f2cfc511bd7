"""Near hashes are found without comparing all of them, and none is missed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.data.manifest import hash_neighbours
from cxr.data.manifest.hash_neighbours import (
    HASH_BITS,
    HashPart,
    count_comparisons,
    divide_hash,
    near_pairs,
    read_codes,
)

SEED = 3
LIMIT = 8
"""`near_distance` of params.yaml."""


def neighbours(codes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    pairs = [(int(low), int(high)) for block in near_pairs(codes, distance) for low, high in block]
    assert len(pairs) == len(set(pairs)), "a pair is found once"
    return sorted(pairs)


def neighbours_of_all_pairs(codes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    numbers = codes.tolist()
    positions = combinations(range(len(numbers)), 2)
    return [pair for pair in positions if (numbers[pair[0]] ^ numbers[pair[1]]).bit_count() <= distance]


def flipped(code: int, bits: np.ndarray) -> int:
    return code ^ sum(1 << int(bit) for bit in bits)


def clustered(generator: np.random.Generator, centres: int, members: int, distance: int) -> np.ndarray:
    """Hashes around few centres: at every distance from 0 to one beyond the limit, and two centres that are near."""
    codes = [int(code) for code in generator.integers(0, 2**63, centres)]
    codes.append(flipped(codes[0], generator.permutation(HASH_BITS)[:distance]))
    for centre in codes.copy():
        for member in range(members):
            codes.append(flipped(centre, generator.permutation(HASH_BITS)[: member % (distance + 2)]))
    return np.array(codes, dtype=np.uint64)


@pytest.fixture(params=[3, 4, 5, 8])
def parts(request, monkeypatch) -> int:
    """Number of parts that hashes are cut into, as for other numbers of hashes than a test has."""
    monkeypatch.setattr(hash_neighbours, "_PART_COUNTS", [request.param])
    monkeypatch.setattr(hash_neighbours, "_LOOKUP_COST", 0)
    return int(request.param)


@pytest.mark.parametrize("distance", [0, 1, 3, LIMIT, 11])
def test_the_pairs_are_those_of_comparing_all(parts: int, distance: int) -> None:
    generator = np.random.default_rng(SEED)
    codes = np.concatenate(
        [
            generator.integers(0, 2**64, 300, dtype=np.uint64),
            clustered(generator, 6, 2 * (distance + 2), distance),
            np.array([0, 2**64 - 1, 0], dtype=np.uint64),
        ]
    )
    expected = neighbours_of_all_pairs(codes, distance)
    assert len(expected) > 6, f"seed {SEED}: there are pairs to find"
    assert neighbours(codes, distance) == expected


def test_every_way_to_differ_in_two_bits_is_found(parts: int) -> None:
    others = [sum(1 << bit for bit in bits) for bits in combinations(range(HASH_BITS), 2)]
    codes = np.array([0, *others], dtype=np.uint64)
    of_first = [pair for block in near_pairs(codes, 2) for pair in block.tolist() if pair[0] == 0]
    assert len(of_first) == len(others) == 2016


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    codes=st.lists(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 255).map(lambda low: low << 30)), max_size=40),
    distance=st.integers(0, HASH_BITS),
)
def test_whatever_the_hashes_and_the_distance(codes: list[int], distance: int) -> None:
    numbers = np.array(codes, dtype=np.uint64)
    assert neighbours(numbers, distance) == neighbours_of_all_pairs(numbers, distance)


@pytest.mark.parametrize("count", [1, 6_000, 100_000, 10_000_000, 1_000_000_000])
@pytest.mark.parametrize("distance", range(0, HASH_BITS + 1, 4))
def test_near_hashes_agree_in_a_part(count: int, distance: int) -> None:
    """To exceed every radius takes more bits than the distance; or there is one part, which all hashes share."""
    parts = divide_hash(count, distance)
    covered = [bit for part in parts for bit in range(part.shift, part.shift + part.width)]
    assert len(covered) == len(set(covered)) <= HASH_BITS
    assert parts == [HashPart(0, 0, 0)] or sum(part.radius + 1 for part in parts) == distance + 1


@pytest.mark.parametrize(("count", "times_fewer"), [(100_000, 50), (1_000_000, 150), (10_000_000, 1_000)])
def test_far_fewer_hashes_are_compared_than_all_pairs(count: int, times_fewer: int) -> None:
    assert count_comparisons(count, divide_hash(count, LIMIT)) < count**2 / 2 / times_fewer


def test_hashes_are_read_as_they_are_written() -> None:
    assert read_codes(["00000000000000ff", "8000000000000000"]).tolist() == [255, 2**63]
    assert read_codes([]).tolist() == []

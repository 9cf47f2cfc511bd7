"""The perceptual hash is exact: no rounding and no processor turns one of its bits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cxr.images.perceptual_hash import perceptual_hash, shrink
from support.vector_instructions import run_without_vector_instructions

TRANSPOSABLE = """
import numpy as np

from cxr.images.perceptual_hash import perceptual_hash

for seed in range(40):
    grey = np.random.default_rng(seed).integers(0, 256, (90 + seed, 90 + seed), dtype=np.uint8)
    print(perceptual_hash(np.maximum(grey, grey.T)))
"""
"""Images that equal their transpose: their frequencies are equal in pairs, and the median is often one of a pair."""


def transposable(seed: int) -> np.ndarray:
    grey = np.random.default_rng(seed).integers(0, 256, (90 + seed, 90 + seed), dtype=np.uint8)
    return np.maximum(grey, grey.T)


@pytest.mark.parametrize("seed", range(8))
def test_equal_frequencies_get_equal_bits(seed: int) -> None:
    code = bytes.fromhex(perceptual_hash(transposable(seed)))
    bits = np.unpackbits(np.frombuffer(code, np.uint8)).reshape(8, 8)
    np.testing.assert_array_equal(bits, bits.T)


def test_hashes_are_the_same_without_vector_instructions() -> None:
    hashes = [perceptual_hash(transposable(seed)) for seed in range(40)]
    assert run_without_vector_instructions(TRANSPOSABLE).split() == hashes


def test_the_hash_of_an_image_is_the_one_that_it_had_on_other_processors() -> None:
    row, column = np.mgrid[:120, :150]
    assert perceptual_hash(((3 * row + 7 * column + row * column // 9) % 256).astype(np.uint8)) == "f8fc0000fc88fcf7"


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (77, 201), (500, 431)])
def test_shrinking_averages_the_area_as_opencv_does(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    expected = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(shrink(grey, 32) - expected).max() <= 1
    assert np.mean(shrink(grey, 32) == expected) > 0.99


@pytest.mark.parametrize("shape", [(1, 5), (5, 40), (31, 33)])
def test_a_small_image_has_a_hash_too(shape: tuple[int, int]) -> None:
    grey = np.full(shape, 90, np.uint8)
    assert (shrink(grey, 32) == 90).all()
    assert len(perceptual_hash(grey)) == 16

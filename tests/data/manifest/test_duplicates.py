"""Exact and near duplicates."""

from __future__ import annotations

import tarfile
from itertools import combinations
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest

from cxr.data.manifest.duplicates import near_candidates, near_pairs, thumbnail, unite
from cxr.images.decoding import decode_grey
from cxr.images.perceptual_hash import perceptual_hash
from support import bad_images


def pairs_of(pictures: list[np.ndarray], **options: float) -> list[tuple[int, int]]:
    return near_pairs([perceptual_hash(picture) for picture in pictures], pictures.__getitem__, **options)


def copies_of(picture: np.ndarray) -> dict[str, np.ndarray]:
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return {
        "re-encoded": decode_grey(bad_images.jpeg(picture, cv2.IMWRITE_JPEG_QUALITY, 40)),
        "half": half,
        "squeezed": cv2.resize(picture, (100, 130), interpolation=cv2.INTER_AREA),
        "doubled": cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC),
        "brighter": np.clip(picture * 0.8 + 40, 0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize("change", ["re-encoded", "half", "squeezed", "doubled", "brighter"])
def test_a_changed_copy_is_the_same_picture(change: str) -> None:
    pictures = [bad_images.picture(seed) for seed in range(20)]
    pictures.append(copies_of(pictures[7])[change])
    assert pairs_of(pictures) == [(7, 20)]


def test_pictures_alike_in_the_large_are_not_the_same() -> None:
    outline = cv2.GaussianBlur(bad_images.picture(0), (0, 0), 25).astype(np.float32)
    fine = [bad_images.picture(seed).astype(np.float32) for seed in range(1, 9)]
    fine = [picture - cv2.GaussianBlur(picture, (0, 0), 8) for picture in fine]
    chests = [np.clip(outline + 0.3 * picture, 0, 255).astype(np.uint8) for picture in fine]
    candidates = near_candidates([perceptual_hash(chest) for chest in chests], 16)
    assert len(candidates) > 0
    assert pairs_of(chests, distance=64) == []


def test_candidates_are_all_pairs_within_the_distance() -> None:
    generator = np.random.default_rng(0)
    codes = [int(code) for code in generator.integers(0, 2**63, 40)]
    codes += [code ^ (1 << int(bit)) ^ 1 for code, bit in zip(codes, generator.integers(1, 63, 40), strict=True)]
    codes += [2**64 - 1, 0]
    for distance in (0, 1, 2, 30, 64):
        expected = [
            [low, high]
            for low, high in combinations(range(len(codes)), 2)
            if (codes[low] ^ codes[high]).bit_count() <= distance
        ]
        assert near_candidates([f"{code:016x}" for code in codes], distance).tolist() == expected


def test_no_picture_and_one_picture_have_no_pairs() -> None:
    assert pairs_of([]) == []
    assert pairs_of([bad_images.picture()]) == []


def test_a_blank_picture_resembles_none() -> None:
    blank = np.full((80, 80), 7, dtype=np.uint8)
    assert not thumbnail(blank).any()


def test_uniting_joins_chains_and_names_the_smallest() -> None:
    assert unite(7, [(5, 4), (1, 5), (2, 3)]).tolist() == [0, 1, 2, 2, 1, 1, 6]
    assert unite(0, []).tolist() == []


@pytest.mark.real
def test_reduced_radiographs_are_matched_to_their_originals_and_to_nothing_else(
    real_originals: Path, real_archive: Path
) -> None:
    originals = read_images(real_originals, None)
    reduced = read_images(real_archive, set(originals))
    names = sorted(originals)
    found = pairs_of([originals[name] for name in names] + [reduced[name] for name in names])
    assert found == [(position, position + len(names)) for position in range(len(names))]


def read_images(archive: Path, wanted: set[str] | None) -> dict[str, np.ndarray]:
    found = {}
    with tarfile.open(archive) as files:
        for member in files:
            name = PurePosixPath(member.name).name
            if name.endswith(".jpeg") and (wanted is None or name in wanted):
                found[name] = decode_grey(files.extractfile(member).read())
    return found

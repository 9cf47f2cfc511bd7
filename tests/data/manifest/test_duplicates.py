"""Near duplicates."""

from __future__ import annotations

import tarfile
from itertools import combinations
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest

from cxr.data.manifest.duplicates import find_hash_neighbours, find_near_duplicates, fine_structure
from cxr.images.decoding import decode_grey
from cxr.images.perceptual_hash import perceptual_hash
from support import bad_images


def find_pairs(images: list[np.ndarray], **options: float) -> list[tuple[int, int]]:
    return find_near_duplicates(
        [perceptual_hash(image) for image in images], images.__getitem__, **{"distance": 8, **options}
    )


def changed_copies(image: np.ndarray) -> dict[str, np.ndarray]:
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return {
        "re-encoded": decode_grey(bad_images.jpeg(image, cv2.IMWRITE_JPEG_QUALITY, 40)),
        "half": half,
        "squeezed": cv2.resize(image, (100, 130), interpolation=cv2.INTER_AREA),
        "doubled": cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC),
        "brighter": np.clip(image * 0.8 + 40, 0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize("change", ["re-encoded", "half", "squeezed", "doubled", "brighter"])
def test_a_changed_copy_is_the_same_image(change: str) -> None:
    images = [bad_images.draw_image(seed) for seed in range(20)]
    images.append(changed_copies(images[7])[change])
    assert find_pairs(images) == [(7, 20)]


def test_images_with_the_same_coarse_structure_are_not_the_same() -> None:
    outline = cv2.GaussianBlur(bad_images.draw_image(0), (0, 0), 25).astype(np.float32)
    fine = [bad_images.draw_image(seed).astype(np.float32) for seed in range(1, 9)]
    fine = [image - cv2.GaussianBlur(image, (0, 0), 8) for image in fine]
    chests = [np.clip(outline + 0.3 * image, 0, 255).astype(np.uint8) for image in fine]
    candidates = find_hash_neighbours([perceptual_hash(chest) for chest in chests], 16)
    assert len(candidates) > 0
    assert find_pairs(chests, distance=64) == []


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
        assert find_hash_neighbours([f"{code:016x}" for code in codes], distance).tolist() == expected


def test_no_image_and_one_image_have_no_pairs() -> None:
    assert find_pairs([]) == []
    assert find_pairs([bad_images.draw_image()]) == []


def test_a_blank_image_has_no_fine_structure() -> None:
    blank = np.full((80, 80), 7, dtype=np.uint8)
    assert not fine_structure(blank).any()


@pytest.mark.real
def test_reduced_radiographs_are_matched_to_their_originals_and_to_nothing_else(
    real_originals: Path, real_archive: Path
) -> None:
    originals = read_images(real_originals, None)
    reduced = read_images(real_archive, set(originals))
    names = sorted(originals)
    pairs = find_pairs([originals[name] for name in names] + [reduced[name] for name in names])
    assert pairs == [(position, position + len(names)) for position in range(len(names))]


def read_images(archive: Path, names: set[str] | None) -> dict[str, np.ndarray]:
    images = {}
    with tarfile.open(archive) as files:
        for member in files:
            name = PurePosixPath(member.name).name
            if name.endswith(".jpeg") and (names is None or name in names):
                images[name] = decode_grey(files.extractfile(member).read())
    return images

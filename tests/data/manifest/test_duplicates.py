"""Near duplicates."""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest

from cxr.data.grouping import connect_pairs
from cxr.data.manifest.duplicates import MIN_CORRELATION, find_near_duplicates
from cxr.data.manifest.fine_structure import fine_structure, low_frequencies
from cxr.data.manifest.hash_neighbours import near_pairs, read_codes
from cxr.images.decoding import decode_grey
from cxr.images.perceptual_hash import perceptual_hash
from support import bad_images


def find_pairs(images: list[np.ndarray], **options: float) -> list[tuple[int, int]]:
    return find_near_duplicates(
        read_codes(map(perceptual_hash, images)), images.__getitem__, **{"distance": 8, **options}
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


def test_low_frequencies_bound_every_correlation_and_tell_most_images_apart() -> None:
    images = [bad_images.draw_image(seed) for seed in range(12)]
    images += [copy for image in images[:4] for copy in changed_copies(image).values()]
    images += [np.zeros((80, 80), dtype=np.uint8)]
    structures = [fine_structure(image) for image in images]
    low = np.stack([low_frequencies(structure) for structure in structures])
    vectors = np.stack(structures).astype(np.float64)
    correlations, bounds = vectors @ vectors.T, low.astype(np.float64) @ low.T
    assert (bounds >= correlations - 1e-5).all()
    assert (correlations[:12, 12:-1] >= MIN_CORRELATION).any(), "copies are among the pairs"
    different = ~np.eye(12, dtype=bool)
    assert (bounds[:12, :12][different] < MIN_CORRELATION).mean() > 0.9


def test_images_with_the_same_coarse_structure_are_not_the_same() -> None:
    outline = cv2.GaussianBlur(bad_images.draw_image(0), (0, 0), 25).astype(np.float32)
    fine = [bad_images.draw_image(seed).astype(np.float32) for seed in range(1, 9)]
    fine = [image - cv2.GaussianBlur(image, (0, 0), 8) for image in fine]
    chests = [np.clip(outline + 0.3 * image, 0, 255).astype(np.uint8) for image in fine]
    codes = read_codes([perceptual_hash(chest) for chest in chests])
    assert any(len(pairs) for pairs in near_pairs(codes, 16))
    assert find_pairs(chests, distance=64) == []


def test_an_image_that_is_no_candidate_is_not_read() -> None:
    images = [bad_images.draw_image(seed) for seed in range(6)]
    images.append(changed_copies(images[2])["half"])
    read: list[int] = []

    def load(position: int) -> np.ndarray:
        read.append(position)
        return images[position]

    hashes = [perceptual_hash(image) for image in images]
    assert find_near_duplicates(read_codes(hashes), load, distance=8) == [(2, 6)]
    assert len(read) == len(set(read)), "an image is read once"
    assert len(read) < len(images)


def test_many_images_of_one_hash_are_joined_by_few_pairs() -> None:
    """Nearly black images share a hash; equal ones are joined to the first one, different ones to none."""
    black = np.zeros((80, 80), dtype=np.uint8)
    dot, line = black.copy(), black.copy()
    dot[30:32, 30:32] = 3
    line[60, 10:40] = 3
    images = [dot, line] * 300 + [bad_images.draw_image()]
    hashes = ["8" + "0" * 15] * 600 + [perceptual_hash(images[-1])]
    pairs = find_near_duplicates(read_codes(hashes), images.__getitem__, distance=8)
    assert pairs == sorted((position % 2, position) for position in range(2, 600))


def test_a_copy_of_equal_images_is_connected_to_all_of_them() -> None:
    image = bad_images.draw_image(3)
    images = [bad_images.draw_image(0), image, image, changed_copies(image)["brighter"], image]
    groups = connect_pairs(len(images), find_pairs(images))
    assert groups.tolist() == [0, 1, 1, 1, 1]


def test_each_image_of_a_hash_is_compared_with_each_of_a_near_hash() -> None:
    images = [bad_images.draw_image(seed) for seed in range(6)]
    copies = [changed_copies(images[position])["brighter"] for position in (4, 0, 2)]
    hashes = ["0" * 16] * 2 + ["0" * 15 + "1"] * 4 + ["0" * 15 + "3"] * 3
    pairs = find_near_duplicates(read_codes(hashes), [*images, *copies].__getitem__, distance=2)
    assert pairs == [(0, 7), (2, 8), (4, 6)]


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

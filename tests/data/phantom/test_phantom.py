"""The phantoms: names, patients and splits, reproducibility, boxes, and no shortcut by metadata."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr.data.dataset import CLASSES, NORMAL, OFFICIAL_SPLITS, PNEUMONIA, DatasetCard
from cxr.data.phantom.dataset import MIN_IMAGES, PhantomPlan, draw_dataset, draw_image, plan_dataset
from cxr.errors import ParameterError
from cxr.files import BOXES_FILE
from support.folder_digests import folder_digests

NAMES = {
    PNEUMONIA: re.compile(r"person\d+_(bacteria|virus)_\d+\.jpeg"),
    NORMAL: re.compile(r"(NORMAL2-)?IM-\d{4}-0001(-\d{4})?\.jpeg"),
}


def pixels(data: bytes, mode: int = cv2.IMREAD_GRAYSCALE) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), mode)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    draw_dataset(folder, images=24, seed=3, workers=2)
    return folder


@pytest.mark.parametrize("images", [MIN_IMAGES, 24, 60, 200, 600])
def test_plan_has_every_subtype_in_train_and_test_and_no_patient_on_two_splits(images: int) -> None:
    plans = plan_dataset(images, seed=1)
    assert len(plans) == images
    assert len({item.path for item in plans}) == images
    splits: dict[tuple[str, int], set[str]] = {}
    for item in plans:
        splits.setdefault((item.subtype, item.patient), set()).add(item.split)
    assert all(len(of_patient) == 1 for of_patient in splits.values())
    for split in ("train", "test"):
        assert {item.subtype for item in plans if item.split == split} == {"normal", "bacteria", "virus"}
    assert max(Counter((item.subtype, item.patient) for item in plans).values()) > 1


@pytest.mark.parametrize("images", [200, 600])
def test_validation_folder_is_the_published_one_in_size(images: int) -> None:
    counts = Counter(item.path.split("/")[1] for item in plan_dataset(images, seed=0) if item.split == "val")
    assert counts == {NORMAL: 8, PNEUMONIA: 8}


def test_patient_numbers_restart_for_each_subtype() -> None:
    plans = plan_dataset(60, seed=0)
    for subtype in ("bacteria", "virus"):
        numbers = {item.patient for item in plans if item.subtype == subtype}
        assert numbers == set(range(1, len(numbers) + 1))


def test_names_follow_the_public_set(drawn: Path) -> None:
    files = list(drawn.glob("*/*/*"))
    assert len(files) == 24
    assert {path.parts[-3] for path in files} == set(OFFICIAL_SPLITS)
    assert {path.parts[-2] for path in files} == set(CLASSES)
    assert all(NAMES[path.parts[-2]].fullmatch(path.name) for path in files)


def test_card_counts_what_is_on_disk(drawn: Path) -> None:
    card = DatasetCard.read(drawn)
    sizes = [path.stat().st_size for path in drawn.glob("*/*/*.jpeg")]
    assert card == DatasetCard("phantom", "phantom", "phantom", 24, sum(sizes), "CC0-1.0")


def test_same_seed_gives_the_same_bytes_whatever_the_workers(drawn: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path, images=24, seed=3, workers=1)
    assert folder_digests(tmp_path) == folder_digests(drawn)


def test_another_seed_gives_other_pictures() -> None:
    item = plan_dataset(24, seed=0)[0]
    assert draw_image(item, 0).data != draw_image(item, 1).data


def test_images_are_readable_and_vary_in_size(drawn: Path) -> None:
    shapes = [pixels(path.read_bytes()).shape for path in drawn.glob("*/*/*.jpeg")]
    assert len(set(shapes)) == len(shapes)
    assert all(430 <= width <= 660 and 300 <= height <= 660 for height, width in shapes)


def test_boxes_lie_in_their_image_and_only_pneumonias_have_them(drawn: Path) -> None:
    facts = json.loads((drawn / BOXES_FILE).read_text())
    assert set(facts) == {path.relative_to(drawn).as_posix() for path in drawn.glob("*/*/*.jpeg")}
    for path, fact in facts.items():
        height, width = pixels((drawn / path).read_bytes()).shape
        assert fact["style"] in ("digital", "film")
        if fact["subtype"] == "normal":
            assert fact["boxes"] == [] and fact["difficulty"] is None
            continue
        assert 0 <= fact["difficulty"] <= 1
        assert fact["boxes"]
        for x, y, w, h in fact["boxes"]:
            assert 0 <= x < x + w <= width and 0 <= y < y + h <= height
            assert 12 <= w < 0.5 * width and 12 <= h < 0.9 * height


def test_a_virus_is_seen_on_both_sides_and_bacteria_on_one(drawn: Path) -> None:
    for path, fact in json.loads((drawn / BOXES_FILE).read_text()).items():
        width = pixels((drawn / path).read_bytes()).shape[1]
        sides = {x + w / 2 > width / 2 for x, _, w, _ in fact["boxes"]}
        if fact["subtype"] == "virus":
            assert sides == {True, False}
        if fact["subtype"] == "bacteria":
            assert len(sides) == 1


def test_an_opacity_brightens_its_box_more_than_the_rest_and_keeps_the_global_statistics() -> None:
    """The same patient with and without a pneumonia: only the label's share of the drawing differs."""
    gains = []
    for number in range(1, 7):
        sick = PhantomPlan("train", "bacteria", number, 0, "person.jpeg")
        with_opacity = draw_image(sick, 5)
        healthy = draw_image(sick, 5, healthy=True)
        first, second = pixels(with_opacity.data), pixels(healthy.data)
        assert first.shape == second.shape
        assert abs(float(first.mean()) - float(second.mean())) < 1.0
        assert abs(float(first.std()) - float(second.std())) < 1.0
        assert abs(len(with_opacity.data) / len(healthy.data) - 1) < 0.06
        x, y, w, h = with_opacity.boxes[0]
        change = first.astype(float) - second
        gains.append(change[y : y + h, x : x + w].mean() - np.median(change))
    assert np.median(gains) > 8
    assert min(gains) > 0


def test_images_of_a_patient_share_their_anatomy_but_not_their_framing() -> None:
    first = PhantomPlan("train", "normal", 1, 0, "a.jpeg")
    image, next_image = draw_image(first, 0), draw_image(replace(first, image=1), 0)
    assert pixels(image.data).shape != pixels(next_image.data).shape


def test_colour_files_are_grey_and_independent_of_the_label(drawn: Path) -> None:
    for path in drawn.glob("*/*/*.jpeg"):
        image = pixels(path.read_bytes(), cv2.IMREAD_UNCHANGED)
        if image.ndim == 3:
            assert np.ptp(image.astype(int), axis=2).max() <= 2


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="images=5"):
        draw_dataset(tmp_path / "new", images=5, seed=0)
    assert not (tmp_path / "new").exists()

"""The exploration report."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.data.checks.drift import BaselineStatistics
from cxr.data.checks.rules import CheckResult
from cxr.data.dataset import DatasetCard
from cxr.data.exploration.report import write_report
from cxr.data.exploration.shortcuts import shortcut_aurocs
from cxr.data.exploration.thumbnails import MAX_THUMBNAIL_SIDE, make_thumbnail, sample_images, show_duplicates
from cxr.data.image_folder import ImageFolder
from support import bad_images
from support.dataset_validation import build_manifest, compare_datasets
from support.manifests import manifest

CARD = DatasetCard("kermany <sample>", "patients", "kermany.tar", 0, 0, "CC BY 4.0")
PIXELS = 1_000_000

pytestmark = pytest.mark.usefixtures("figures_are_drawn")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 sound images of 16 patients, a copy, a coloured one, a broken one and one with a hostile name."""
    folder = tmp_path_factory.mktemp("exploration") / "data"
    for split in ("train", "test"):
        for label in ("NORMAL", "PNEUMONIA"):
            (folder / split / label).mkdir(parents=True)
    for number in range(8):
        split = ("train", "test")[number % 2]
        bad_images.sound(folder / split / "NORMAL" / f"IM-{number:04d}-0001.jpeg", number)
        subtype = ("bacteria", "virus")[number // 4]
        bad_images.sound(folder / split / "PNEUMONIA" / f"person{number}_{subtype}_1.jpeg", 100 + number)
    train = folder / "train" / "NORMAL"
    shutil.copy(train / "IM-0002-0001.jpeg", train / "IM-0002-0002.jpeg")
    grey = bad_images.draw_image(500)
    coloured = bad_images.jpeg(np.dstack([grey, grey // 2, grey]))
    (folder / "train" / "PNEUMONIA" / "person50_virus_1.jpeg").write_bytes(coloured)
    bad_images.truncated(train / "IM-0060-0001.jpeg")
    bad_images.sound(train / "<img src=x onerror=alert(1)>.jpeg", 7)
    return folder


@pytest.fixture(scope="module")
def frame(data: Path) -> pd.DataFrame:
    return build_manifest(data)


@pytest.fixture(scope="module")
def page(data: Path, frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory, figures_are_drawn: None) -> str:
    path = tmp_path_factory.mktemp("report") / "exploration.html"
    write_page(path, frame, data)
    return path.read_text("utf-8")


def write_page(path: Path, frame: pd.DataFrame, data: Path) -> list[set[str]]:
    """Write the page; gives the columns of the accepted images that were read together."""
    results = [
        CheckResult("copies", "No file twice", "warning", False, "2 of 17", "at most 1", ("a.jpeg",)),
        CheckResult("drift", "The data look like the last set", "warning", None, "not compared", "limits"),
        CheckResult("labelled", "All have labels", "critical", False, "1 of 17", "NORMAL", ("b.jpeg",)),
        CheckResult("decodable", "Every file can be read", "warning", True, "all files", "readable files"),
    ]
    comparison = compare_datasets(BaselineStatistics.from_manifest(frame, CARD, "a" * 64), None)
    accepted, left_out = frame[frame["status"] == "accepted"], frame[frame["status"] != "accepted"]
    columns_read: list[set[str]] = []

    def read(columns: Sequence[str]) -> pd.DataFrame:
        columns_read.append(set(columns))
        return accepted[list(columns)]

    write_report(
        path,
        read,
        repeated(accepted),
        left_out,
        ImageFolder(data),
        CARD,
        results,
        comparison,
        digest="a" * 64,
        max_pixels=PIXELS,
        seed=0,
    )
    return columns_read


def repeated(accepted: pd.DataFrame) -> pd.DataFrame:
    return accepted[accepted["duplicate_group"] != ""]


def test_the_page_loads_nothing_and_runs_no_script(page: str) -> None:
    assert not re.findall(r"<script|<link|@import|javascript:", page)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith(("data:image/", "#", "data_docs/")) for address in addresses)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_names_of_files_and_data_sets_are_text_never_markup(page: str) -> None:
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.jpeg" in page
    assert "<h1>kermany &lt;sample&gt;</h1>" in page


def test_every_thumbnail_is_an_image_of_its_stated_size(page: str) -> None:
    thumbnails = re.findall(r'src="data:image/jpeg;base64,([^"]+)" width="(\d+)" height="(\d+)"', page)
    assert len(thumbnails) >= 16
    for coded, width, height in thumbnails:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(coded), np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape == (int(height), int(width))


def test_outcomes_are_words_beside_their_signs(page: str) -> None:
    for sign in ("&#10003; passed", "&#9888; warning", "&#10007; failed", "&#8211; not run"):
        assert sign in page


def test_failed_checks_are_named_at_the_top(page: str) -> None:
    top = page[: page.index("<nav>")]
    assert "All have labels" in top
    assert "No file twice" not in top


def test_files_left_out_are_listed_with_problem_and_reason(page: str) -> None:
    part = page[page.index('id="left-out"') : page.index('id="checks"')]
    assert "train/NORMAL/IM-0060-0001.jpeg" in part
    assert "<b>truncated</b>" in part
    assert "before its end mark" in part


def test_headline_counts_are_those_of_the_manifest(page: str) -> None:
    numbers = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", page))
    assert numbers == {
        "images accepted": "18",
        "patients": "17",
        "with pneumonia": "50%",
        "files left out": "2",
        "of 4 checks": "1 failed, 1 warning",
    }


def test_drawings_of_one_page_share_no_identifier(page: str) -> None:
    identifiers = re.findall(r'\sid="([^"]+)"', page)
    assert identifiers and len(identifiers) == len(set(identifiers))
    assert "#010203" not in page


def test_the_same_data_give_the_same_page(page: str, data: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    write_page(tmp_path / "again.html", frame, data)
    assert (tmp_path / "again.html").read_text("utf-8") == page


def test_no_two_parts_of_the_page_have_their_columns_in_memory_together(
    data: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    columns_read = write_page(tmp_path / "page.html", frame, data)
    assert {"label", "patient"} in columns_read
    assert max(len(columns) for columns in columns_read) < len(set.union(*columns_read))


def test_a_data_set_without_one_accepted_image_still_gets_its_page(
    data: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    write_page(tmp_path / "page.html", frame.assign(status="quarantined"), data)
    assert "person50_virus_1.jpeg" in (tmp_path / "page.html").read_text("utf-8")


def test_samples_show_each_subtype_and_each_patient_once(data: Path, frame: pd.DataFrame) -> None:
    accepted = frame[frame["status"] == "accepted"]
    rows = {
        row.title: row.images for row in sample_images(accepted, ImageFolder(data), max_pixels=PIXELS, count=8, seed=0)
    }
    assert list(rows) == ["NORMAL", "PNEUMONIA, bacteria", "PNEUMONIA, virus"]
    assert [len(images) for images in rows.values()] == [8, 4, 5]
    assert len({thumbnail.caption for thumbnail in rows["NORMAL"]}) == 8


def test_duplicates_are_shown_side_by_side(data: Path, frame: pd.DataFrame) -> None:
    accepted = frame[frame["status"] == "accepted"]
    (group,) = show_duplicates(repeated(accepted), ImageFolder(data), max_pixels=PIXELS)
    assert group.title == "Same bytes"
    assert [thumbnail.path[-17:] for thumbnail in group.images] == ["IM-0002-0001.jpeg", "IM-0002-0002.jpeg"]
    assert group.note == ""
    pneumonia = frame["path"].str.contains("person0_bacteria")
    twin = frame.copy()
    twin.loc[pneumonia, "duplicate_group"] = accepted["duplicate_group"].max()
    (group,) = show_duplicates(repeated(twin[twin["status"] == "accepted"]), ImageFolder(data), max_pixels=PIXELS)
    assert group.title == "Same look"
    assert "both labels" in group.note


def test_thumbnails_keep_the_shape_of_the_image() -> None:
    thumbnail = make_thumbnail(np.zeros((1000, 2000), np.uint8), "a.jpeg", "a")
    assert (thumbnail.width, thumbnail.height) == (MAX_THUMBNAIL_SIDE, MAX_THUMBNAIL_SIDE // 2)


def test_a_shortcut_is_found_and_chance_is_not_called_a_shortcut() -> None:
    images = manifest(150, 150)
    images.loc[images["label"] == "NORMAL", "bytes"] += 2000
    aurocs = shortcut_aurocs(images, seed=0)
    assert aurocs["file size"] > 0.95
    assert aurocs["all together"] > 0.95
    assert aurocs["width"] == 0.5
    assert abs(aurocs["mean grey level"] - 0.5) < 0.15


def test_shortcuts_of_too_few_patients_are_unknown() -> None:
    assert shortcut_aurocs(manifest(3, 30), seed=0).isna().all()

"""A source in the format of the RSNA challenge becomes a data folder, and what contradicts itself is named."""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.data.boxes import read_boxes
from cxr.data.dataset import DatasetCard
from cxr.errors import SourceError
from cxr.images.decoding import decode_grey
from cxr.images.prepared import PreparedImages
from cxr.steps.fetch import Fetch
from cxr.steps.preprocess import Preprocess
from cxr.steps.resplit import Resplit
from cxr.steps.validate import Validate
from support.fetch_requests import fetch_images
from support.rsna_files import LABELS, SIDE, rsna_image, write_labels, write_rsna_set

BOXES = {
    "0004cfab": [],
    "00313ee0": [],
    "00436515": [[10, 20, 30.5, 40], [70, 30, 58, 98]],
    "00704310": [[0, 0, 128, 128]],
    "1e5": [],
}
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
CLASS_INFO = "stage_2_detailed_class_info.csv"

FetchSet = Callable[..., DatasetCard]


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    return write_rsna_set(tmp_path / "challenge", BOXES)


@pytest.fixture
def fetch(tmp_path: Path) -> FetchSet:
    def fetch(source: Path, **parameters: object) -> DatasetCard:
        data = tmp_path / "data"
        data.mkdir()
        return fetch_images(source, data, downloads=tmp_path / "downloads", **parameters)

    return fetch


def add_rows(folder: Path, *rows: str) -> None:
    with (folder / LABELS).open("a") as file:
        file.writelines(f"{row}\n" for row in rows)


def patients_of(data: Path) -> dict[str, str]:
    table = pd.read_csv(data / "patients.csv", dtype=str)
    return {Path(path).stem: patient for path, patient in zip(table["path"], table["patient"], strict=True)}


@pytest.mark.parametrize("packing", ["folder", "tar"])
def test_images_are_copied_as_they_are_into_the_folders_of_their_classes(
    challenge: Path, fetch: FetchSet, tmp_path: Path, packing: str
) -> None:
    source = challenge
    if packing == "tar":
        source = tmp_path / "challenge.tar"
        with tarfile.open(source, "w") as tar:
            tar.add(challenge, "rsna")
    card = fetch(source)
    data = tmp_path / "data"
    copied = {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*.dcm")}
    assert copied == {
        f"{'PNEUMONIA' if rows else 'NORMAL'}/{key}.dcm": (
            challenge / "stage_2_train_images" / f"{key}.dcm"
        ).read_bytes()
        for key, rows in BOXES.items()
    }
    assert {path.name for path in data.iterdir()} == {
        "NORMAL",
        "PNEUMONIA",
        "dataset.json",
        "boxes.json",
        "patients.csv",
    }
    assert (card.name, card.kind, card.source) == ("rsna-pneumonia", "patients", source.name)
    assert (card.images, card.bytes) == (5, sum(map(len, copied.values())))
    assert "Shih" in card.licence
    assert patients_of(data) == {key: key for key in BOXES}


def test_images_may_have_another_ending_of_dicom_or_none(challenge: Path, fetch: FetchSet, tmp_path: Path) -> None:
    folder = challenge / "stage_2_train_images"
    (folder / "00313ee0.dcm").rename(folder / "00313ee0")
    (folder / "00436515.dcm").rename(folder / "00436515.DICOM")
    (folder / "LICENSE").write_text("terms")
    assert fetch(challenge).images == len(BOXES)
    assert (tmp_path / "data" / "NORMAL" / "00313ee0").is_file()
    assert len(read_boxes(tmp_path / "data").images["PNEUMONIA/00436515.DICOM"].boxes) == 2


def test_boxes_are_those_of_the_table(challenge: Path, fetch: FetchSet, tmp_path: Path) -> None:
    fetch(challenge)
    images = read_boxes(tmp_path / "data").images
    assert {Path(path).stem: len(image.boxes) for path, image in images.items()} == {
        key: len(rows) for key, rows in BOXES.items()
    }
    np.testing.assert_array_equal(images["PNEUMONIA/00436515.dcm"].boxes, [[10, 20, 40.5, 60], [70, 30, SIDE, SIDE]])
    assert {(image.difficulty, image.subtype) for image in images.values()} == {(None, None)}


def test_boxes_of_an_image_with_oblong_pixels_are_where_it_shows_them(
    challenge: Path, fetch: FetchSet, tmp_path: Path
) -> None:
    path = challenge / "stage_2_train_images" / "00436515.dcm"
    path.write_bytes(rsna_image(2, spacing=(0.4, 0.2)))
    fetch(challenge)
    copy = "PNEUMONIA/00436515.dcm"
    assert decode_grey((tmp_path / "data" / copy).read_bytes()).shape == (2 * SIDE, SIDE)
    boxes = read_boxes(tmp_path / "data").images[copy].boxes
    np.testing.assert_array_equal(boxes, [[10, 40, 40.5, 120], [70, 60, SIDE, 2 * SIDE]])


def test_the_classes_of_the_challenge_become_subtypes(challenge: Path, fetch: FetchSet, tmp_path: Path) -> None:
    classes = {key: "Lung Opacity" if rows else "Normal" for key, rows in BOXES.items()}
    classes["1e5"] = "No Lung Opacity / Not Normal"
    rows = [f"{key},{name}" for key, name in classes.items() for _ in range(2)]  # a row per box in the challenge
    (challenge / CLASS_INFO).write_text("\n".join(["patientId,class", *rows]))
    fetch(challenge)
    images = read_boxes(tmp_path / "data").images
    assert {Path(path).stem: image.subtype for path, image in images.items()} == classes
    (challenge / CLASS_INFO).write_text("\n".join(["patientId,class", *rows, "1e5,Normal"]))
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(SourceError, match=r"one class per patientId.*'1e5'"):
        fetch(challenge)


def test_images_of_one_person_have_one_patient_where_the_mapping_says_so(
    challenge: Path, fetch: FetchSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(challenge)
    assert f"without {MAPPING} each image counts as a patient" in caplog.text
    shutil.rmtree(tmp_path / "data")
    numbers = {key: f"{number // 2:08d}" for number, key in enumerate(BOXES)}
    mapping = [{"subset_img_id": key, "img_id": f"{number}_007.png"} for key, number in numbers.items()]
    (challenge / MAPPING).write_text(json.dumps([*mapping, {"subset_img_id": "other", "img_id": "00000009_000.png"}]))
    caplog.clear()
    fetch(challenge)
    assert MAPPING not in caplog.text
    assert patients_of(tmp_path / "data") == numbers


@pytest.mark.parametrize("mapping", ["{", "[3]", '[{"img_id": "1_0.png"}]', '[{"subset_img_id": "a", "img_id": "1"}]'])
def test_a_mapping_that_lacks_images_is_refused(challenge: Path, fetch: FetchSet, mapping: str) -> None:
    (challenge / MAPPING).write_text(mapping)
    with pytest.raises(SourceError, match=rf"{MAPPING} .*or remove it"):
        fetch(challenge)


def test_images_without_a_row_and_other_files_are_left_out_and_listed(
    challenge: Path, fetch: FetchSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (challenge / "stage_2_test_images").mkdir()
    (challenge / "stage_2_test_images" / "ffff.dcm").write_bytes(rsna_image(9))
    (challenge / "stage_2_sample_submission.csv").write_text("patientId,PredictionString\n")
    (challenge / "stage_2_train_images" / ".DS_Store").write_bytes(b"x")
    assert fetch(challenge).images == len(BOXES)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("1 file (without a row in the table of labels)" in text and "ffff.dcm" in text for text in warnings)
    assert any("1 file (not named like a DICOM file): 'stage_2_sample" in text for text in warnings)
    assert len(list((tmp_path / "data").rglob("*.dcm"))) == len(BOXES)


def test_a_part_of_the_set_must_be_meant(
    challenge: Path, fetch: FetchSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (challenge / "stage_2_train_images" / "00313ee0.dcm").unlink()
    with pytest.raises(
        SourceError, match=r"each of the 5 patientIds.*without 1 of them: '00313ee0\.dcm'.*--expect any"
    ):
        fetch(challenge)
    assert not any((tmp_path / "data").iterdir())
    (tmp_path / "data").rmdir()
    assert fetch(challenge, expect="any").images == 4
    assert "left out the rows of 1 patientIds without an image: '00313ee0.dcm'" in caplog.text
    assert "NORMAL/00313ee0.dcm" not in read_boxes(tmp_path / "data").images


def test_a_row_that_is_there_twice_counts_once(
    challenge: Path, fetch: FetchSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_rows(challenge, "00704310,0,0,128,128,1", "1e5,,,,,0")
    fetch(challenge)
    assert "left out 2 repeated rows: '00704310', '1e5'" in caplog.text
    assert len(read_boxes(tmp_path / "data").images["PNEUMONIA/00704310.dcm"].boxes) == 1


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("0004cfab,1,2,3,4,1", "1|2 with both Targets for one patientId .'0004cfab'"),
        ("00704310,,,,,0", "2 with both Targets for one patientId .'00704310'"),
        ("new,1,2,3,4,0", "1 with Target 0 and a box .'new'"),
        ("new,1,2,,,0", "1 with Target 0 and a box .'new'"),
        ("new,,,,,1", "1 with Target 1 and no box .'new'"),
        ("new,1,2,3,,1", "1 with Target 1 and no box .'new'"),
        ("new,1,2,0,4,1", "1 with Target 1 and no box .'new'"),
        ("new,1,x,3,4,1", "1 with Target 1 and no box .'new'"),
        ("new,1,2,3,4,2", "1 with another Target .'new'"),
        (",1,2,3,4,1", "1 without patientId"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(
    challenge: Path, fetch: FetchSet, tmp_path: Path, row: str, problem: str
) -> None:
    add_rows(challenge, row)
    with pytest.raises(SourceError, match=rf"{LABELS} with rows .*{problem}"):
        fetch(challenge, expect="any")
    assert not any((tmp_path / "data").iterdir())


@pytest.mark.parametrize("row", [[-1, 2, 3, 4], [1, -2, 3, 4], [100, 2, 29, 4], [1, 100, 3, 28.5]])
def test_a_box_outside_of_its_image_is_refused(
    tmp_path: Path, challenge: Path, fetch: FetchSet, row: list[float]
) -> None:
    write_labels(challenge, BOXES | {"00436515": [[10, 20, 30, 40], row]})
    with pytest.raises(SourceError, match=r"with 1 others .*00436515: \[.*\] in 128x128"):
        fetch(challenge)


def test_a_broken_image_is_copied_for_validate_to_judge(challenge: Path, fetch: FetchSet, tmp_path: Path) -> None:
    path = challenge / "stage_2_train_images" / "00436515.dcm"
    path.write_bytes(path.read_bytes()[:900])
    assert fetch(challenge).images == len(BOXES)
    assert len(read_boxes(tmp_path / "data").images["PNEUMONIA/00436515.dcm"].boxes) == 2


@pytest.mark.parametrize("copy", ["stage_2_train_labels.csv", "stage_2_train_images/1e5.dcm"])
def test_a_second_copy_of_a_table_or_an_image_is_refused(challenge: Path, fetch: FetchSet, copy: str) -> None:
    (challenge / "copy").mkdir()
    shutil.copy(challenge / copy, challenge / "copy")
    with pytest.raises(SourceError, match=r"once, received source=challenge with .*remove one of them"):
        fetch(challenge)


@pytest.mark.parametrize("text", ["", "patientId,x,y,width,height\n", 'patientId,x,y,width,height,Target\n"a'])
def test_a_table_that_is_no_table_of_labels_is_refused(challenge: Path, fetch: FetchSet, text: str) -> None:
    (challenge / LABELS).write_text(text)
    with pytest.raises(SourceError, match=rf"columns patientId, x, y, width, height, Target, received .*{LABELS}"):
        fetch(challenge)


def test_a_set_of_one_class_is_refused(challenge: Path, fetch: FetchSet) -> None:
    write_labels(challenge, {key: [] for key in BOXES})
    with pytest.raises(SourceError, match="without PNEUMONIA"):
        fetch(challenge)


def test_the_set_passes_through_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch, validate, resplit, preprocess; images with one mapped patient stay in one split."""
    monkeypatch.chdir(tmp_path)
    boxes = {f"{number:02d}-rsna": [[20, 30, 40, 50]] * (number % 5 < 2) for number in range(40)}
    source = write_rsna_set(tmp_path / "challenge", boxes)
    mapping = [{"subset_img_id": key, "img_id": f"{int(key[:2]) // 2:08d}_{key[:2]}.png"} for key in boxes]
    (source / MAPPING).write_text(json.dumps(mapping))
    broken = source / "stage_2_train_images" / "03-rsna.dcm"
    broken.write_bytes(broken.read_bytes()[:900])

    Fetch.build({"source": "challenge"}).execute()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    Fetch.build({"source": "challenge"}).execute()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == times, "fetched once"

    Validate.build({"naming": "any", "min_side": 100}).execute()
    manifest = pd.read_parquet("artifacts/manifest/manifest.parquet").set_index("path")
    assert len(manifest) == 40
    assert manifest.loc["NORMAL/03-rsna.dcm", ["status", "problem"]].tolist() == ["quarantined", "truncated"]
    accepted = manifest[manifest["status"] == "accepted"]
    assert len(accepted) == 39
    assert set(accepted["mode"]) == {"L"} and set(accepted["width"]) == {SIDE} and accepted["grey"].all()
    assert accepted["patient"].nunique() == 20

    Resplit.build({"protocol": "grouped", "max_deviation": 1}).execute()
    splits = pd.read_parquet("artifacts/splits/splits.parquet")
    assert set(splits["path"]) == set(accepted.index)
    assert (splits.groupby("patient")["split"].nunique() == 1).all()
    assert set(splits["split"]) == {"train", "validation", "test"}

    Preprocess.build({"recipe": "s2_resize"}).execute()
    prepared = PreparedImages.open(Path("artifacts/prepared/s2_resize"))
    assert prepared.images.shape == (39, 64, 64, 1)
    annotations = read_boxes(tmp_path / "data").select(prepared.index["path"].tolist())
    assert [len(image.boxes) for image in annotations] == [
        len(boxes[Path(path).stem]) and 1 for path in prepared.index["path"]
    ]

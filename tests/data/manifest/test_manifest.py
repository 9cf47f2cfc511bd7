"""The manifest of a data folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pandas as pd
import pytest

from cxr.data.manifest.builder import MANIFEST_DTYPES, content_digest, default_policy, read_manifest
from cxr.errors import DataError, ParameterError, SourceError
from cxr.files import MANIFEST_FILE
from cxr.images.problems import TRAINING_PROBLEMS
from cxr.images.result_cache import ResultCache
from cxr.tables import write_table
from support import bad_images
from support.dataset_validation import build_manifest
from support.dicom_files import dicom_file


def build(data: Path, **arguments: object) -> pd.DataFrame:
    return build_manifest(data, **arguments).set_index("path", drop=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six sound images of five patients in the published layout."""
    names = [
        "train/NORMAL/IM-0115-0001.jpeg",
        "train/NORMAL/NORMAL2-IM-0115-0001.jpeg",
        "train/PNEUMONIA/person1_bacteria_1.jpeg",
        "train/PNEUMONIA/person1_bacteria_2.jpeg",
        "train/PNEUMONIA/person1_virus_3.jpeg",
        "test/NORMAL/IM-0001-0001.jpeg",
    ]
    folder = tmp_path / "data"
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        bad_images.sound(folder / name, seed)
    return folder


def test_every_image_has_one_row_with_label_patient_and_split(data: Path) -> None:
    frame = build_manifest(data)
    assert list(frame.columns) == list(MANIFEST_DTYPES)
    assert frame["path"].tolist() == sorted(frame["path"])
    assert len(frame) == 6
    row = frame.set_index("path").loc["train/PNEUMONIA/person1_bacteria_2.jpeg"]
    assert row[["label", "subtype", "series", "patient", "official_split"]].tolist() == [
        "PNEUMONIA",
        "bacteria",
        "bacteria",
        "bacteria-1",
        "train",
    ]
    assert frame["patient"].nunique() == 5
    assert set(frame["status"]) == {"accepted"}
    assert set(frame["problem"]) == {""}
    assert set(frame["duplicate_group"]) == {""}
    assert set(frame["splits_of_patient"]) == {1}


def test_the_manifest_is_the_same_for_any_number_of_threads_and_survives_the_disk(data: Path, tmp_path: Path) -> None:
    bad_images.write_bad_images(data / "train" / "PNEUMONIA")
    frame = build_manifest(data, workers=1)
    pd.testing.assert_frame_equal(build_manifest(data, workers=4), frame)
    write_table(tmp_path / MANIFEST_FILE, frame)
    pd.testing.assert_frame_equal(read_manifest(tmp_path), frame)


def test_facts_that_were_kept_are_those_of_the_files(data: Path, tmp_path: Path) -> None:
    """Also for bad files, copies, the same content under another ending, and other limits."""
    folder = data / "train" / "PNEUMONIA"
    bad_images.write_bad_images(folder)
    shutil.copy(folder / "person1_bacteria_1.jpeg", folder / "person7_bacteria_1.png")
    shutil.copy(folder / "person1_bacteria_1.jpeg", folder / "person8_bacteria_1.jpeg")
    others = replace(bad_images.IMAGE_LIMITS, min_side=170, colour_tolerance=255)
    expected, expected_of_others = build_manifest(data), build_manifest(data, limits=others)
    assert not expected.equals(expected_of_others)
    for _ in range(2):
        with ResultCache(tmp_path / "cache", 10**9, str) as cache:
            pd.testing.assert_frame_equal(build_manifest(data, cache=cache), expected)
            pd.testing.assert_frame_equal(build_manifest(data, cache=cache, limits=others), expected_of_others)


def test_every_kind_of_bad_file_is_quarantined_with_its_problem(data: Path) -> None:
    expected = bad_images.write_bad_images(data / "train" / "PNEUMONIA")
    frame = build(data)
    for name, problem in expected.items():
        row = frame.loc[f"train/PNEUMONIA/{name}"]
        assert row["problem"] == problem
        assert row["detail"]
        assert row["status"] == ("accepted" if problem == "colour" else "quarantined")
    assert (frame["status"] == "accepted").sum() == 7
    unreadable = frame[~frame["readable"]]
    assert unreadable["mean"].isna().all() and (unreadable["phash"] == "").all() and unreadable["grey"].isna().all()


def test_policy_refuses_or_accepts_by_problem(data: Path) -> None:
    bad_images.too_small(data / "train/NORMAL/IM-0200-0001.jpeg")
    bad_images.truncated(data / "train/NORMAL/IM-0201-0001.jpeg")
    frame = build(data, policy={"too_small": "accept", "truncated": "refuse"})
    assert frame.loc["train/NORMAL/IM-0200-0001.jpeg", ["problem", "status"]].tolist() == [
        "too_small",
        "accepted",
    ]
    assert frame.loc["train/NORMAL/IM-0201-0001.jpeg", "status"] == "refused"


def test_the_strictest_action_of_several_problems_counts(data: Path) -> None:
    bad_images.too_small(data / "train/NORMAL/small.jpeg")
    frame = build(data, policy={"misnamed": "quarantine", "too_small": "refuse"})
    row = frame.loc["train/NORMAL/small.jpeg"]
    assert row["problem"] == "misnamed"
    assert "20x20" in row["detail"]
    assert row["status"] == "refused"


def test_all_wrong_parameters_are_reported_together(data: Path) -> None:
    policy = {"truncated": "accept", "blurry": "refuse", "aspect": "ignore"}
    with pytest.raises(ParameterError) as caught:
        build_manifest(data, policy=policy, naming="ours")
    assert len(caught.value.problems) == 4
    assert set(default_policy()) == set(TRAINING_PROBLEMS)


def test_name_and_folder_must_agree(data: Path) -> None:
    bad_images.sound(data / "train/NORMAL/person7_bacteria_1.jpeg", 50)
    bad_images.sound(data / "train/PNEUMONIA/scan.jpeg", 51)
    bad_images.text(data / "train/NORMAL/notes.txt")
    frame = build(data)
    swapped = frame.loc["train/NORMAL/person7_bacteria_1.jpeg"]
    assert swapped[["problem", "status", "label"]].tolist() == ["mislabelled", "quarantined", "NORMAL"]
    misnamed = frame.loc["train/PNEUMONIA/scan.jpeg"]
    assert misnamed["problem"] == "misnamed" and misnamed["label"] == "PNEUMONIA"
    assert pd.isna(misnamed["patient"]) and pd.isna(misnamed["subtype"])
    assert frame.loc["train/NORMAL/notes.txt", "problem"] == "not_an_image"


def test_files_outside_class_folders_are_misplaced_and_system_files_are_not_listed(data: Path) -> None:
    for name in (
        "train/IM-0300-0001.jpeg",
        "other/NORMAL/IM-0301-0001.jpeg",
        "train/NORMAL/sub/IM-0302-0001.jpeg",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        bad_images.sound(data / name, 60)
    for name in (
        "train/NORMAL/.DS_Store",
        "__MACOSX/NORMAL/IM-1-1.jpeg",
        "dataset.json",
        "boxes.json",
        "README.md",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("{}", encoding="utf-8")
    frame = build(data)
    assert len(frame) == 9
    misplaced = frame[frame["problem"] == "misplaced"]
    assert set(misplaced["path"]) == {
        "train/IM-0300-0001.jpeg",
        "other/NORMAL/IM-0301-0001.jpeg",
        "train/NORMAL/sub/IM-0302-0001.jpeg",
    }
    assert misplaced["label"].isna().all()


def test_links_are_reported_and_never_followed(data: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    bad_images.sound(outside / "IM-0900-0001.jpeg", 70)
    (data / "train/NORMAL/IM-0901-0001.jpeg").symlink_to(outside / "IM-0900-0001.jpeg")
    (data / "val").symlink_to(outside)
    frame = build(data)
    links = frame[frame["problem"] == "symlink"]
    assert set(links["path"]) == {"train/NORMAL/IM-0901-0001.jpeg", "val"}
    assert links["sha256"].isna().all() and (links["status"] == "quarantined").all()
    assert len(frame) == 8


def test_a_name_that_is_not_utf_8_is_shown_escaped(data: Path, tmp_path: Path) -> None:
    bad_images.sound(data / os.fsdecode(b"train/NORMAL/IM-\xff.jpeg"), 80)
    frame = build(data)
    row = frame.loc["train/NORMAL/IM-\\xff.jpeg"]
    assert row["problem"] == "misnamed" and row["readable"]
    write_table(tmp_path / MANIFEST_FILE, frame.reset_index(drop=True))
    assert "train/NORMAL/IM-\\xff.jpeg" in set(read_manifest(tmp_path)["path"])


def test_copies_are_counted_and_grouped_over_patients_and_labels(data: Path) -> None:
    first = data / "train/NORMAL/IM-0115-0001.jpeg"
    shutil.copy(first, data / "train/NORMAL/IM-0400-0001.jpeg")
    shutil.copy(first, data / "train/PNEUMONIA/person8_virus_1.jpeg")
    frame = build(data)
    same = frame[frame["sha256"] == frame.loc["train/NORMAL/IM-0115-0001.jpeg", "sha256"]]
    assert set(same["copies"]) == {3} and set(same["labels_of_hash"]) == {2}
    assert same["duplicate_group"].nunique() == 1 and same["duplicate_group"].iloc[0].startswith("same-")
    assert set(same["near_group"]) == {""}
    single = frame.drop(same.index)
    assert set(single["copies"]) == {1} and set(single["duplicate_group"]) == {""}


def test_re_encoded_copies_and_exact_copies_of_either_are_one_group(data: Path) -> None:
    original = data / "train/NORMAL/IM-0115-0001.jpeg"
    re_encoded = data / "train/PNEUMONIA/person8_virus_1.jpeg"
    re_encoded.write_bytes(bad_images.jpeg(bad_images.draw_image(0), cv2.IMWRITE_JPEG_QUALITY, 50))
    shutil.copy(re_encoded, data / "train/PNEUMONIA/person9_virus_1.jpeg")
    frame = build(data)
    group = frame[frame["near_group"] != ""]
    assert set(group["path"]) == {path.relative_to(data).as_posix() for path in (original, re_encoded)} | {
        "train/PNEUMONIA/person9_virus_1.jpeg"
    }
    assert group["near_group"].nunique() == group["duplicate_group"].nunique() == 1
    assert set(group["labels_of_group"]) == {2} and sorted(group["copies"]) == [1, 2, 2]
    assert group["duplicate_group"].iloc[0] == "same-" + min(group["sha256"])[:16]
    assert (build(data, near_correlation=1.01)["near_group"] == "").all()


def test_a_patient_in_two_official_splits_is_counted(data: Path) -> None:
    bad_images.sound(data / "test/NORMAL/IM-0115-0002.jpeg", 90)
    frame = build(data)
    assert set(frame.loc[frame["patient"] == "IM-0115", "splits_of_patient"]) == {2}
    assert set(frame.loc[frame["patient"] != "IM-0115", "splits_of_patient"]) == {1}


def test_other_names_take_patients_from_the_table_or_the_name(tmp_path: Path) -> None:
    for seed, name in enumerate(("NORMAL/a1.png", "NORMAL/a2.png", "PNEUMONIA/b.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bad_images.png(bad_images.draw_image(seed)))
    frame = build(tmp_path, naming="any")
    assert frame["patient"].tolist() == ["a1", "a2", "b"]
    assert (frame["status"] == "accepted").all() and (frame["official_split"] == "").all()
    assert frame["subtype"].tolist()[:2] == ["normal", "normal"] and pd.isna(frame["subtype"].iloc[2])
    assert set(build(tmp_path)["problem"]) == {"misnamed"}

    (tmp_path / "patients.csv").write_text(
        "path,patient,subtype\nNORMAL/a1.png,0042,\nPNEUMONIA/b.png,0042,virus\n", encoding="utf-8"
    )
    frame = build(tmp_path, naming="any")
    assert frame.loc["NORMAL/a1.png", "patient"] == frame.loc["PNEUMONIA/b.png", "patient"] == "0042"
    assert frame.loc["PNEUMONIA/b.png", "subtype"] == "virus"
    assert frame.loc["NORMAL/a2.png", ["problem", "status"]].tolist() == ["misnamed", "quarantined"]


def test_the_digest_changes_with_content_and_with_paths_only(data: Path) -> None:
    frame = build_manifest(data)
    digest = content_digest(frame)
    assert digest == content_digest(frame.sample(frac=1, random_state=0))
    moved = data / "train/NORMAL/IM-0115-0001.jpeg"
    moved.rename(data / "train/NORMAL/IM-0116-0001.jpeg")
    renamed = content_digest(build_manifest(data))
    bad_images.sound(data / "train/NORMAL/IM-0116-0001.jpeg", 99)
    changed = content_digest(build_manifest(data))
    assert len({digest, renamed, changed}) == 3


def test_a_missing_or_empty_folder_and_a_foreign_manifest_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cxr fetch"):
        build_manifest(tmp_path / "nothing")
    with pytest.raises(SourceError, match="without any"):
        build_manifest(tmp_path)
    write_table(tmp_path / MANIFEST_FILE, pd.DataFrame({"path": ["a"]}))
    with pytest.raises(DataError, match="sha256"):
        read_manifest(tmp_path)


@pytest.mark.real
@pytest.mark.exhaustive  # test_patients.py reads the names of the set, and phantoms pass through the same checks
def test_the_published_set_is_sound_and_its_only_image_of_two_patients_is_one_group(
    real_archive: Path, tmp_path: Path
) -> None:
    shutil.unpack_archive(real_archive, tmp_path)
    root = next(path for path in tmp_path.rglob("train")).parent
    frame = build_manifest(root)
    assert len(frame) == 5856 and set(frame["status"]) == {"accepted"}
    assert frame["patient"].nunique() == 4097 and set(frame["splits_of_patient"]) == {1}
    copied = frame[frame["copies"] > 1]
    assert len(copied) == 62 and copied["duplicate_group"].nunique() == 30
    assert set(copied["labels_of_group"]) == {1}
    assert (frame["duplicate_group"] != "").sum() == 62
    patients = copied.groupby("duplicate_group")["patient"].unique()
    assert [set(group) for group in patients if len(group) > 1] == [{"NORMAL2-IM-0095", "NORMAL2-IM-0096"}]


def test_dicom_files_named_by_their_uid_are_different_patients_and_have_no_problem(tmp_path: Path) -> None:
    names = ["1.2.840.113.11", "1.2.840.113.12", "1.2.840.114.11.dcm", "0001.dicom", "0002.ima", "IM000001"]
    (tmp_path / "NORMAL").mkdir()
    for seed, name in enumerate(names):
        (tmp_path / "NORMAL" / name).write_bytes(dicom_file(bad_images.draw_image(seed)))
    frame = build(tmp_path, naming="any")
    assert dict(zip(frame["path"], frame["patient"], strict=True)) == {
        "NORMAL/1.2.840.113.11": "1.2.840.113.11",
        "NORMAL/1.2.840.113.12": "1.2.840.113.12",
        "NORMAL/1.2.840.114.11.dcm": "1.2.840.114.11",
        "NORMAL/0001.dicom": "0001",
        "NORMAL/0002.ima": "0002",
        "NORMAL/IM000001": "IM000001",
    }
    assert set(frame["problem"]) == {""}


def test_a_link_to_a_name_that_is_not_utf_8_can_be_stored(tmp_path: Path) -> None:
    (tmp_path / "NORMAL").mkdir()
    (tmp_path / "NORMAL" / "link.png").symlink_to(os.fsdecode(b"m\xfcller.png"))
    write_table(tmp_path / MANIFEST_FILE, build_manifest(tmp_path, naming="any"))
    assert r"m\xfcller.png" in read_manifest(tmp_path)["detail"].iloc[0]

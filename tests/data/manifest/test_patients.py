"""Names of radiographs and the patients they show."""

from __future__ import annotations

import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

import pytest

from cxr.data.manifest.patients import ImageName, PatientRow, parse_kermany_name, read_patient_table, read_patients
from cxr.errors import DataError, ImageError

NAMES = {
    "person12_bacteria_46.jpeg": ("PNEUMONIA", "bacteria", "bacteria", 12, "bacteria-12", "46"),
    "person12_virus_90.jpeg": ("PNEUMONIA", "virus", "virus", 12, "virus-12", "90"),
    "person447_virus_921_1.jpeg": ("PNEUMONIA", "virus", "virus", 447, "virus-447", "921_1"),
    "IM-0115-0001.jpeg": ("NORMAL", "normal", "IM", 115, "IM-0115", "0001"),
    "IM-0297-0001-0002.jpeg": ("NORMAL", "normal", "IM", 297, "IM-0297", "0001-0002"),
    "NORMAL2-IM-0115-0001.jpeg": ("NORMAL", "normal", "NORMAL2-IM", 115, "NORMAL2-IM-0115", "0001"),
    "NORMAL2-IM-1436-0001-0002.jpeg": (
        "NORMAL",
        "normal",
        "NORMAL2-IM",
        1436,
        "NORMAL2-IM-1436",
        "0001-0002",
    ),
    "person3_virus_15.JPG": ("PNEUMONIA", "virus", "virus", 3, "virus-3", "15"),
    "IM-12345-0001.png": ("NORMAL", "normal", "IM", 12345, "IM-12345", "0001"),
}


@pytest.mark.parametrize(("name", "parts"), NAMES.items())
def test_a_name_tells_label_subtype_and_typed_patient(name: str, parts: tuple) -> None:
    assert parse_kermany_name(name) == ImageName(*parts)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".jpeg",
        "radiograph.jpeg",
        "person12_bacteria_46",
        "person12_bacteria_46.txt",
        "person12_bacteria_46.jpeg.tmp",
        "person_bacteria_46.jpeg",
        "person12_fungus_46.jpeg",
        "xperson12_bacteria_46.jpeg",
        "person12_bacteria_46 (1).jpeg",
        "Person12_bacteria_46.jpeg",
        "IM-0115.jpeg",
        "NORMAL3-IM-0115-0001.jpeg",
        "person١٢_virus_90.jpeg",
        "train/IM-0115-0001.jpeg",
        "IM-0115-0001.jpeg\n",
    ],
)
def test_a_name_of_another_form_is_misnamed(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_kermany_name(name)
    assert caught.value.problem == "misnamed"


def test_a_table_maps_paths_to_patients(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("path,patient,subtype\nNORMAL/a.png,007,\nPNEUMONIA/b.png,NA,virus\n", encoding="utf-8")
    assert read_patients(table) == {
        "NORMAL/a.png": PatientRow("007", None),
        "PNEUMONIA/b.png": PatientRow("NA", "virus"),
    }


def test_further_columns_of_the_table_are_kept_as_text(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("path,patient,age,scanner\nNORMAL/a.png, 007 ,4,\nPNEUMONIA/b.png,NA,0.5,B\n", encoding="utf-8")
    assert read_patient_table(table).to_dict("list") == {
        "path": ["NORMAL/a.png", "PNEUMONIA/b.png"],
        "patient": ["007", "NA"],
        "age": ["4", "0.5"],
        "scanner": ["", "B"],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "path and patient"),
        ("path,person\na.png,1\n", "'patient'"),
        ("path,patient\na.png,1\na.png,2\n", "twice=['a.png']"),
        ("path,patient\na.png,\n", "without patient=['a.png']"),
        ("path,patient,subtype\na.png,1,fungus\n", "subtypes=['fungus']"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(content: str, message: str, tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_patients(table)
    assert message in str(caught.value)


@pytest.mark.real
def test_the_published_set_has_4097_patients_and_none_in_two_splits(real_archive: Path) -> None:
    with tarfile.open(real_archive) as archive:
        paths = [PurePosixPath(name) for name in archive.getnames() if name.endswith(".jpeg")]
    splits = defaultdict(set)
    for path in paths:
        image_name = parse_kermany_name(path.name)
        assert image_name.label == path.parts[-2]
        splits[image_name.patient].add(path.parts[-3])
    assert len(paths) == 5856
    assert len(splits) == 4097
    assert all(len(patient_splits) == 1 for patient_splits in splits.values())

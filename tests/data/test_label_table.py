"""Labels of other data: what findings mean, and which image a row names."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.data.label_table import LabelReading, labels_of_folders, labels_of_table
from cxr.errors import ParameterError

WORDS = {"No Finding": NORMAL, "Pneumonia": PNEUMONIA, "Pneumonia/Lipoid": None, "Mass": NORMAL}
READING = LabelReading(None, None, None, WORDS, {}, accept_missing=False, slices=())


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("No Finding", NORMAL),
        ("Pneumonia|Infiltration", PNEUMONIA),
        ("Infiltration | pneumonia", PNEUMONIA),
        ("Pneumonia/Viral/COVID-19", PNEUMONIA),
        ("Pneumonia/Lipoid", None),
        ("Pneumonia/Lipoid/Exogenous", None),
        ("Pneumonialike", None),
        ("Mass|Pneumonia", PNEUMONIA),
        ("Mass|Infiltration", None),
        ("todo", None),
        ("", None),
    ],
)
def test_findings_of_a_cell_give_a_class_or_stay_unknown(cell: str, label: str | None) -> None:
    assert READING.label_of(cell) == label


def write(folder: Path, *lines: str) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a/b/x.png", "b/x.png", "x.png", "set/a/b/x.png", "/data/a/b/x.png", r"a\b\x.png"])
def test_a_row_names_an_image_by_its_path_its_end_or_a_longer_path(name: str, tmp_path: Path) -> None:
    table = write(tmp_path, "path,label", f"{name},Pneumonia")
    (image,) = labels_of_table(table, ["a/b/x.png", "a/b/y.png", "a/b/ax.png"], READING).images
    assert image.path == "a/b/x.png"


def test_a_path_of_another_folder_is_another_image(tmp_path: Path) -> None:
    table = write(tmp_path, "path,label", "c/x.png,Pneumonia")
    with pytest.raises(ParameterError, match=r"not there 1: 'c/x\.png'"):
        labels_of_table(table, ["a/b/x.png"], READING)


def test_rows_that_agree_count_once_and_an_unknown_finding_takes_normal_away(tmp_path: Path) -> None:
    table = write(
        tmp_path, "\ufeffpath,label,patient", "x.png,Pneumonia,p1", "x.png,Effusion,p1", "y.png,No Finding,p2",
        "y.png,Effusion,p2", "z.png,No Finding,", "z.png,No Finding,p3",
    )  # fmt: skip
    labels = labels_of_table(table, ["x.png", "y.png", "z.png"], READING)
    assert [(image.path, image.label, image.patient) for image in labels.images] == [
        ("x.png", PNEUMONIA, "p1"), ("z.png", NORMAL, "p3"),
    ]  # fmt: skip
    assert labels.unknown == {"Effusion": 1}
    assert labels.counts == {NORMAL: 1, PNEUMONIA: 1}


def test_missing_images_can_be_left_out_and_rows_of_unknown_class_need_none(tmp_path: Path) -> None:
    table = write(tmp_path, "path,label", "x.png,Pneumonia", "gone.png,No Finding", "also_gone.png,todo")
    with pytest.raises(ParameterError, match=r"not there 1: 'gone\.png'"):
        labels_of_table(table, ["x.png"], READING)
    accepting = LabelReading(None, None, None, WORDS, {}, accept_missing=True, slices=())
    labels = labels_of_table(table, ["x.png"], accepting)
    assert (len(labels.images), labels.missing) == (1, 1)


def test_the_columns_of_both_published_tables_are_known_and_others_can_be_named(tmp_path: Path) -> None:
    nih = write(tmp_path, "Image Index,Finding Labels,Patient ID", "x.png,No Finding,7")
    assert labels_of_table(nih, ["x.png"], READING).images[0].patient == "7"
    covid = write(tmp_path, "patientid,finding,filename", "9,Pneumonia/Viral,x.png")
    assert labels_of_table(covid, ["x.png"], READING).images[0].patient == "9"
    own = write(tmp_path, "file,diagnosis", "x.png,Pneumonia")
    named = LabelReading("file", "diagnosis", None, WORDS, {}, accept_missing=False, slices=())
    assert labels_of_table(own, ["x.png"], named).images[0].patient is None
    with pytest.raises(ParameterError) as error:
        labels_of_table(
            own, ["x.png"], LabelReading(None, None, "mrn", WORDS, {"view": ["PA"]}, accept_missing=False, slices=())
        )
    assert len(error.value.problems) == 4, "path, label, patient and view"


def test_class_folders_give_label_and_file_names_of_the_style_the_patient() -> None:
    paths = [
        "set/Normal/IM-0115-0001.jpeg",
        "set/PNEUMONIA/person1_virus_6.jpeg",
        "set/other/x.png",
        "set/normal/y.png",
    ]
    labels = labels_of_folders(paths)
    assert [(image.label, image.patient, image.subtype) for image in labels.images] == [
        (NORMAL, "IM-0115", "normal"), (PNEUMONIA, "virus-1", "virus"), (NORMAL, None, "normal"),
    ]  # fmt: skip
    assert labels.without_label == 1
    by_table = labels_of_folders(paths, {"set/normal/y.png": "p9"})
    assert [image.patient for image in by_table.images] == [None, None, "p9"]

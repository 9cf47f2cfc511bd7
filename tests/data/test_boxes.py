"""Boxes of opacities are read from a data folder, and wrong ones are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cxr.data.boxes import AnnotatedImage, BoxAnnotations, read_boxes, to_corners, to_rows
from cxr.errors import DataError, MissingInputError

SUBTYPES = {"normal", "bacteria", "virus"}


def write(folder: Path, entries: object) -> Path:
    (folder / "boxes.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def test_every_phantom_is_annotated_also_those_without_opacity(phantom_folder: Path) -> None:
    annotations = read_boxes(phantom_folder)
    paths = [path.relative_to(phantom_folder).as_posix() for path in sorted(phantom_folder.rglob("*.jpeg"))]
    assert list(annotations.images) == paths
    assert {image.subtype for image in annotations.images.values()} == SUBTYPES
    for path, image in annotations.images.items():
        has_opacity = "PNEUMONIA" in path
        assert image.boxes.dtype == np.float32 and image.boxes.shape[1:] == (4,)
        assert (len(image.boxes) > 0) == has_opacity == (image.difficulty is not None)


def test_rows_of_the_file_are_corners_in_arrays(tmp_path: Path) -> None:
    entry = {"style": "a", "subtype": "virus", "difficulty": 0.25, "boxes": [[10, 20, 30, 40], [0, 0.5, 1, 2]]}
    annotations = read_boxes(write(tmp_path, {"b.png": entry, "a.png": {"boxes": []}}))
    assert list(annotations.images) == ["a.png", "b.png"]
    image = annotations.images["b.png"]
    np.testing.assert_array_equal(image.boxes, [[10, 20, 40, 60], [0, 0.5, 1, 2.5]])
    assert (image.difficulty, image.subtype) == (0.25, "virus")
    empty = annotations.images["a.png"]
    assert (empty.boxes.shape, empty.difficulty, empty.subtype) == ((0, 4), None, None)


def test_corners_and_rows_are_inverse() -> None:
    boxes = to_corners([[264, 152, 213, 379], [1.5, 2, 3, 4.25]])
    np.testing.assert_array_equal(to_rows(boxes), [[264, 152, 213, 379], [1.5, 2, 3, 4.25]])
    assert to_rows(to_corners([])).shape == (0, 4)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    images = {
        "PNEUMONIA/b.dcm": AnnotatedImage(to_corners([[264, 152, 213, 379], [1.5, 2, 3, 4]]), 0.5, None),
        "NORMAL/a.dcm": AnnotatedImage(to_corners([]), None, "normal"),
    }
    BoxAnnotations(images).write(tmp_path)
    lines = (tmp_path / "boxes.json").read_text().splitlines()
    assert lines[1] == '"NORMAL/a.dcm": {"subtype": "normal", "difficulty": null, "boxes": []},'
    assert lines[2].endswith('"boxes": [[264, 152, 213, 379], [1.5, 2, 3, 4]]}')
    copies = read_boxes(tmp_path).images
    assert list(copies) == sorted(images)
    for path, image in images.items():
        np.testing.assert_array_equal(copies[path].boxes, image.boxes)
        assert (copies[path].difficulty, copies[path].subtype) == (image.difficulty, image.subtype)


def test_an_image_that_nobody_annotated_is_not_one_without_opacity(tmp_path: Path) -> None:
    annotations = read_boxes(write(tmp_path, {"a.png": {"boxes": []}, "b.png": {"boxes": [[1, 2, 3, 4]]}}))
    assert [len(image.boxes) for image in annotations.select(["b.png", "a.png"])] == [1, 0]
    with pytest.raises(DataError, match=r"received 1 images that are not there: 'c\.png'"):
        annotations.select(["a.png", "c.png"])


def test_a_data_set_without_boxes_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"without boxes\.json; fetch one that has them"):
        read_boxes(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {"subtype": "virus"},
        {"boxes": [[1, 2, 3]]},
        {"boxes": [1, 2, 3, 4]},
        {"boxes": [[1, 2, "x", 4]]},
        {"boxes": [[1, 2, 0, 4]]},
        {"boxes": [[1, 2, 3, -4]]},
        {"boxes": [[1, 2, 3, None]]},
        {"boxes": [[float("nan"), 2, 3, 4]]},
        {"boxes": [], "difficulty": 1.5},
        {"boxes": [], "difficulty": "hard"},
        {"boxes": [], "subtype": 3},
    ],
)
def test_a_wrong_entry_is_named_with_its_image(tmp_path: Path, entry: object) -> None:
    with pytest.raises(DataError, match=r"with 1 wrong entries: .b\.png: "):
        read_boxes(write(tmp_path, {"a.png": {"boxes": []}, "b.png": entry}))


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_file_that_is_no_table_of_boxes_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "boxes.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"boxes\.json"):
        read_boxes(tmp_path)

"""Finding the class folders of a source, and saying what else it holds."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from cxr.data.sources.layout import NESTED, OTHER, SYSTEM, Layout, find_layout
from cxr.errors import SourceError
from cxr.storage.contents import Entry

PLAIN = ["NORMAL/a.jpeg", "PNEUMONIA/b.jpeg"]
SPLIT = [f"{split}/{path}" for split in ("train", "val", "test") for path in PLAIN]


def layout_of(*paths: str) -> Layout:
    return find_layout([Entry(PurePosixPath(path), 10) for path in paths], "x")


def kept(layout: Layout) -> list[str]:
    return sorted(str(path) for path in layout.images.values())


def refusal(*paths: str) -> str:
    with pytest.raises(SourceError) as caught:
        layout_of(*paths)
    return str(caught.value)


@pytest.mark.parametrize("root", ["", "chest_xray/", "downloads/kermany224/"])
@pytest.mark.parametrize("paths", [PLAIN, SPLIT])
def test_class_folders_are_found_at_any_depth(root: str, paths: list[str]) -> None:
    layout = layout_of(*(root + path for path in paths))
    assert kept(layout) == sorted(paths)
    assert layout.bytes == 10 * len(paths)


def test_folder_names_are_found_in_any_case_and_kept_in_the_official_one() -> None:
    assert kept(layout_of("Train/Normal/a.JPG", "Train/pneumonia/b.png")) == [
        "train/NORMAL/a.JPG",
        "train/PNEUMONIA/b.png",
    ]


def test_images_are_counted_per_split_and_class() -> None:
    layout = layout_of("train/NORMAL/a.png", "train/NORMAL/b.png", "test/PNEUMONIA/c.png")
    assert layout.counts == {("train", "NORMAL"): 2, ("test", "PNEUMONIA"): 1}


def test_a_nested_copy_is_ignored() -> None:
    paths = [f"chest_xray/{path}" for path in SPLIT]
    layout = layout_of(*paths, *(f"chest_xray/{path}" for path in paths))
    assert set(map(str, layout.images)) == set(paths)
    assert len(layout.ignored[NESTED]) == len(paths)


def test_a_nested_folder_with_other_images_is_ambiguous() -> None:
    text = refusal(*SPLIT, *(f"more/{path}" for path in SPLIT), "more/train/NORMAL/new.jpeg")
    assert "holds 2 sets: ./ with 6 images; more/ with 7 images" in text


def test_two_sets_side_by_side_are_ambiguous() -> None:
    assert "holds 2 sets" in refusal(*(f"a/{path}" for path in PLAIN), *(f"b/{path}" for path in PLAIN))


def test_system_files_are_ignored_and_others_are_told() -> None:
    system = ["__MACOSX/x/NORMAL/._a.jpeg", "x/.DS_Store", "x/NORMAL/._a.jpeg", "x/NORMAL/Thumbs.db"]
    others = ["x/readme.txt", "x/NORMAL/notes.txt", "x/NORMAL/deeper/c.jpeg"]
    layout = layout_of(*(f"x/{path}" for path in PLAIN), *system, *others)
    assert kept(layout) == PLAIN
    assert set(map(str, layout.ignored[SYSTEM])) == set(system)
    assert set(map(str, layout.ignored[OTHER])) == set(others)


def test_side_files_are_kept_beside_the_images_only() -> None:
    layout = layout_of(*(f"x/{path}" for path in PLAIN), "x/boxes.json", "x/dataset.json", "boxes.json")
    assert {str(source): str(target) for source, target in layout.side.items()} == {
        "x/boxes.json": "boxes.json",
        "x/dataset.json": "dataset.json",
    }
    assert layout.ignored[OTHER] == (PurePosixPath("boxes.json"),)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ([], "no files"),
        (["cats/a.jpeg", "dogs/b.jpeg", "x.txt"], "3 files (2 named as images) in '.', 'cats', 'dogs'"),
        (["NORMAL/a.jpeg"], "images in NORMAL, without PNEUMONIA"),
        (["NORMAL/a.jpeg", "PNEUMONIA/notes.txt"], "images in NORMAL, without PNEUMONIA"),
        ([*PLAIN, *SPLIT], "inside and outside of splits"),
        (["train/NORMAL/a.jpeg", "Train/normal/a.jpeg"], "for the same place"),
    ],
)
def test_other_layouts_say_what_was_found_and_expected(paths: list[str], found: str) -> None:
    text = refusal(*paths)
    assert found in text
    assert "source=x" in text

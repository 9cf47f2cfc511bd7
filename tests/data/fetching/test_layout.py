"""The class folders of a source are found; what else it holds is ignored or refused."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from cxr.data.fetching.layout import SourceLayout, find_layout
from cxr.data.image_files import ELSEWHERE, NESTED_COPY, NO_IMAGE, SYSTEM_FILE
from cxr.errors import SourceError
from cxr.storage.contents import SourceFile

PLAIN = ["NORMAL/a.jpeg", "PNEUMONIA/b.jpeg"]
SPLIT = [f"{split}/{path}" for split in ("train", "val", "test") for path in PLAIN]


def layout_of(*paths: str) -> SourceLayout:
    """Layout of files whose first bytes are text, where their names do not say that they are images."""
    entries = [SourceFile(PurePosixPath(path), 10) for path in paths]
    return find_layout(entries, "x", lambda unknown: dict.fromkeys(unknown, b"some text"))


def copied_paths(layout: SourceLayout) -> list[str]:
    return sorted(str(path) for path in layout.images.values())


def refusal(*paths: str) -> str:
    with pytest.raises(SourceError) as caught:
        layout_of(*paths)
    return str(caught.value)


@pytest.mark.parametrize("root", ["", "chest_xray/", "downloads/kermany224/"])
@pytest.mark.parametrize("paths", [PLAIN, SPLIT])
def test_class_folders_are_found_at_any_depth(root: str, paths: list[str]) -> None:
    layout = layout_of(*(root + path for path in paths))
    assert copied_paths(layout) == sorted(paths)
    assert layout.bytes == 10 * len(paths)


def test_folder_names_are_recognised_in_any_case_and_copied_in_the_official_spelling() -> None:
    assert copied_paths(layout_of("Train/Normal/a.JPG", "Train/pneumonia/b.png")) == [
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
    assert len(layout.ignored[NESTED_COPY]) == len(paths)


def test_a_nested_folder_with_other_images_is_ambiguous() -> None:
    error = refusal(*SPLIT, *(f"more/{path}" for path in SPLIT), "more/train/NORMAL/new.jpeg")
    assert "holds 2 sets: ./ with 6 images; more/ with 7 images" in error


def test_two_sets_side_by_side_are_ambiguous() -> None:
    assert "holds 2 sets" in refusal(*(f"a/{path}" for path in PLAIN), *(f"b/{path}" for path in PLAIN))


def test_system_files_are_ignored_and_other_files_are_reported() -> None:
    system_files = ["__MACOSX/x/NORMAL/._a.jpeg", "x/.DS_Store", "x/NORMAL/._a.jpeg", "x/NORMAL/Thumbs.db"]
    other_files = ["x/readme.txt", "x/NORMAL/deeper/c.jpeg"]
    layout = layout_of(*(f"x/{path}" for path in PLAIN), *system_files, *other_files, "x/NORMAL/notes.txt")
    assert copied_paths(layout) == PLAIN
    assert set(map(str, layout.ignored[SYSTEM_FILE])) == set(system_files)
    assert set(map(str, layout.ignored[ELSEWHERE])) == set(other_files)
    assert layout.ignored[NO_IMAGE] == (PurePosixPath("x/NORMAL/notes.txt"),)


def test_side_files_are_copied_only_from_beside_the_class_folders() -> None:
    layout = layout_of(*(f"x/{path}" for path in PLAIN), "x/boxes.json", "x/dataset.json", "boxes.json")
    assert {str(source): str(target) for source, target in layout.side.items()} == {
        "x/boxes.json": "boxes.json",
        "x/dataset.json": "dataset.json",
    }
    assert layout.ignored[ELSEWHERE] == (PurePosixPath("boxes.json"),)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no files"),
        (["cats/a.jpeg", "dogs/b.jpeg", "x.txt"], "3 files (2 named as images) in '.', 'cats', 'dogs'"),
        (["NORMAL/a.jpeg"], "images in NORMAL, without PNEUMONIA"),
        (["NORMAL/a.jpeg", "PNEUMONIA/notes.txt"], "images in NORMAL, without PNEUMONIA"),
        ([*PLAIN, *SPLIT], "inside and outside of splits"),
        (["train/NORMAL/a.jpeg", "Train/normal/a.jpeg"], "for the same place"),
    ],
)
def test_other_layouts_are_refused_with_what_they_hold(paths: list[str], message: str) -> None:
    error = refusal(*paths)
    assert message in error
    assert "source=x" in error

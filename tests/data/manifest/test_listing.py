"""A folder is listed whole: images, and everything else with the reason why it is left out."""

from __future__ import annotations

import os
from pathlib import Path

from cxr.data.image_files import LINK, NO_IMAGE, SPECIAL_FILE, SYSTEM_FILE
from cxr.data.manifest.listing import list_image_files, list_images
from support.dicom_files import dicom_file, draw_12_bits


def write_files(folder: Path, *names: str) -> None:
    radiograph = dicom_file(draw_12_bits(), BitsStored=12)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"text" if name.endswith(".txt") else radiograph)


def test_everything_in_a_folder_is_an_image_or_has_a_reason(tmp_path: Path) -> None:
    write_files(tmp_path, "DICOM/IM1", "a.dcm", "notes.txt", ".DS_Store", ".git/config.txt", ".git/objects/a")
    (tmp_path / "link.dcm").symlink_to("a.dcm")
    (tmp_path / "link").symlink_to("DICOM/IM1")
    (tmp_path / "linked_folder").symlink_to("DICOM")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.png")
    listing = list_images(tmp_path)
    assert listing.images == ("DICOM/IM1", "a.dcm", "link.dcm", "linked_folder", "pipe.png")
    assert listing.left_out == {
        NO_IMAGE: ("notes.txt",),
        SYSTEM_FILE: (".DS_Store", ".git/"),
        LINK: ("link",),
        SPECIAL_FILE: ("pipe",),
    }


def test_names_that_are_not_utf_8_are_listed(tmp_path: Path) -> None:
    names = [os.fsdecode(b"R\xf6ntgen"), os.fsdecode(b"R\xf6ntgen.txt")]
    write_files(tmp_path, *names)
    listing = list_images(tmp_path)
    assert (listing.images, listing.left_out) == ((names[0],), {NO_IMAGE: (names[1],)})


def test_the_manifest_lists_all_files_of_class_folders_and_images_elsewhere(tmp_path: Path) -> None:
    write_files(tmp_path, "NORMAL/IM1", "NORMAL/notes.txt", "train/NORMAL/a.dcm", "elsewhere/IM2", "elsewhere/b.txt")
    assert list_image_files(tmp_path) == ["NORMAL/IM1", "NORMAL/notes.txt", "elsewhere/IM2", "train/NORMAL/a.dcm"]

"""Images are told by name, else by their first bytes; every other file has a reason."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from cxr.data.fetching.archives import open_archive
from cxr.data.image_files import DISC_INDEX, EMPTY_FILE, NO_IMAGE, SYSTEM_FILE, choose_images
from cxr.images.file_types import HEAD_BYTES
from cxr.storage.contents import FolderContents, SourceContents
from support import bad_images
from support.dicom_files import dicom_dataset, dicom_file, draw_12_bits, write_dicom

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"


def disc_contents() -> dict[str, bytes]:
    """Files of a hospital's disc, with some that a browser and an operating system left there."""
    image = bad_images.draw_image()
    radiograph = dicom_file(draw_12_bits(), BitsStored=12)
    index = dicom_dataset(np.zeros((2, 2), np.uint8), SOPClassUID=DICOMDIR_CLASS)
    index.file_meta.MediaStorageSOPClassUID = DICOMDIR_CLASS
    return {
        "DICOM/0000/IM1": radiograph,
        "0001.dicom": radiograph,
        "0002.DICOM": radiograph,
        "0003.ima": radiograph,
        "0004.DCM": radiograph,
        "1.2.840.113.12": radiograph,
        "without_preamble": radiograph[128 + len("DICM") :],
        "scan": bad_images.jpeg(image),
        "scan.tmp": bad_images.png(image),
        "empty.dcm": b"",
        "text.jpeg": b"no image",
        "DICOMDIR": write_dicom(index),
        "README": b"Insert the disc and start viewer.exe",
        "viewer.exe": b"MZ" + bytes(2000),
        "scan.pdf": b"%PDF-1.7",
        "LOCKFILE": b"",
        ".DS_Store": b"x",
        "ward/Thumbs.db": b"x",
    }


IMAGES = {
    "DICOM/0000/IM1", "0001.dicom", "0002.DICOM", "0003.ima", "0004.DCM", "1.2.840.113.12", "without_preamble",
    "scan", "scan.tmp", "empty.dcm", "text.jpeg",
}  # fmt: skip
LEFT_OUT = {
    DISC_INDEX: {"DICOMDIR"},
    NO_IMAGE: {"README", "viewer.exe", "scan.pdf"},
    EMPTY_FILE: {"LOCKFILE"},
    SYSTEM_FILE: {".DS_Store", "ward/Thumbs.db"},
}


def as_folder(folder: Path, contents: dict[str, bytes]) -> SourceContents:
    for name, content in contents.items():
        (folder / "disc" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "disc" / name).write_bytes(content)
    return FolderContents(folder / "disc")


def as_zip(folder: Path, contents: dict[str, bytes]) -> SourceContents:
    with zipfile.ZipFile(folder / "disc.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return open_archive(folder / "disc.zip", max_bytes=10**9)


def as_tar(folder: Path, contents: dict[str, bytes]) -> SourceContents:
    with tarfile.open(folder / "disc.tgz", "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return open_archive(folder / "disc.tgz", max_bytes=10**9)


@pytest.mark.parametrize("pack", [as_folder, as_zip, as_tar])
def test_each_file_of_a_disc_is_an_image_or_has_a_reason(
    tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], SourceContents]
) -> None:
    contents = pack(tmp_path, disc_contents())
    images, left_out = choose_images([entry.path for entry in contents.entries], contents.read_heads)
    assert set(map(str, images)) == IMAGES
    assert {reason: set(map(str, paths)) for reason, paths in left_out.items()} == LEFT_OUT


@pytest.mark.parametrize("pack", [as_folder, as_zip, as_tar])
def test_only_the_first_bytes_are_read(
    tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], SourceContents]
) -> None:
    large, small = bytes(range(256)) * 1000, b"abc"
    contents = pack(tmp_path, {"large": large, "small": small})
    heads = contents.read_heads([PurePosixPath("large"), PurePosixPath("small")])
    assert heads == {PurePosixPath("large"): large[:HEAD_BYTES], PurePosixPath("small"): small}


def test_files_that_are_named_like_images_are_not_looked_into() -> None:
    requested: list[PurePosixPath] = []

    def read_heads(paths: list[PurePosixPath]) -> dict[PurePosixPath, bytes]:
        requested.extend(paths)
        return {}

    paths = [PurePosixPath(name) for name in ("a.PNG", "b.dcm", ".hidden", "IM1")]
    images, _ = choose_images(paths, read_heads)
    assert requested == [PurePosixPath("IM1")]
    assert [path.name for path in images] == ["a.PNG", "b.dcm", "IM1"], "what cannot be looked into counts as an image"

"""Data from elsewhere: a folder, an archive or a prefix of an object store, opened as images to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cxr.data.dataset import SIDE_FILES, DatasetCard
from cxr.data.fetching.archives import ARCHIVE_SUFFIXES, open_archive
from cxr.data.image_files import choose_images
from cxr.data.manifest.patients import read_patients
from cxr.errors import MissingInputError, SourceError
from cxr.files import PATIENTS_FILE, expect_free_space
from cxr.inference.scoring.sources import FolderImages, ImageSource, ObjectStoreImages
from cxr.storage.contents import SourceContents


@dataclass(frozen=True)
class OutsideData:
    """A data set that a model was not made from.

    Attributes:
        images: its images.
        card: its name and kind, from its own card if it has one.
        patients: path to patient, from a table beside the images; None if there is none.
    """

    images: ImageSource
    card: DatasetCard
    patients: Mapping[str, str] | None


def open_data(address: str, scratch: Path, *, endpoint_url: str | None, max_bytes: int) -> OutsideData:
    """List the images of a data set.

    Args:
        address: a folder, a tar or zip file, or ``s3://bucket/prefix``.
        scratch: an empty folder, into which the images of an archive are unpacked.
        endpoint_url: address of an object store other than Amazon's; None uses the environment.
        max_bytes: size of an unpacked archive above which it is refused.

    Returns:
        The data set; nothing is decoded yet.

    Raises:
        MissingInputError: if there is no such folder or file.
        SourceError: if it cannot be read, is unsafe or too large, or holds no image.
        DataError: if its table of patients is wrong.
    """
    patients = None
    images: ImageSource
    if address.startswith("s3://"):
        images = ObjectStoreImages(address, endpoint_url=endpoint_url)
        card = DatasetCard(address.rstrip("/").rpartition("/")[2], "patients", "object store", 0, 0, "unknown")
    else:
        folder = Path(address).expanduser()
        if folder.is_file():
            contents = open_archive(folder, max_bytes=max_bytes)
            folder = scratch / _without_suffix(folder.name)
            _unpack(contents, folder)
        elif not folder.is_dir():
            raise MissingInputError(
                f"expected a folder, an archive ({', '.join(ARCHIVE_SUFFIXES)}) or s3://bucket/prefix, received "
                f"data={address}; check the spelling"
            )
        images, card = FolderImages(folder), DatasetCard.read(folder)
        if (folder / PATIENTS_FILE).is_file():
            patients = {path: row.patient for path, row in read_patients(folder / PATIENTS_FILE).items()}
    if not images.files:
        raise SourceError(
            f"expected images, received data={images.name} with none; name a folder, archive or prefix that holds "
            "JPEG, PNG or DICOM files, at any depth"
        )
    return OutsideData(images, card, patients)


def _unpack(contents: SourceContents, folder: Path) -> None:
    """Write the images and side files of an archive into a folder."""
    image_paths, _ = choose_images([entry.path for entry in contents.entries], contents.read_heads)
    chosen = frozenset(image_paths)
    entries = {
        entry.path: entry for entry in contents.entries
        if entry.path in chosen or str(entry.path) in SIDE_FILES
    }  # fmt: skip
    expect_free_space(folder, sum(entry.bytes for entry in entries.values()), f"the images of {contents.name}")
    folder.mkdir(parents=True)
    for entry, pieces in contents.read(entries):
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("xb") as stream:
                stream.writelines(pieces)
        except FileExistsError as error:
            raise SourceError(
                f"expected {str(entry.path)!r} once, received data={contents.name} with it twice; unpack it, and give "
                "the folder"
            ) from error


def _without_suffix(name: str) -> str:
    suffix = next((suffix for suffix in ARCHIVE_SUFFIXES[::-1] if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)] or name

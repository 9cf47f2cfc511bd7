"""Data from elsewhere: a folder, an archive or a prefix of an object store, opened as images to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cxr.data.dataset import SIDE_FILES, DatasetCard
from cxr.data.fetching.archives import ARCHIVE_SUFFIXES, open_archive
from cxr.data.image_files import choose_images
from cxr.data.manifest.patients import read_patient_table
from cxr.errors import MissingInputError, SourceError
from cxr.files import DATASET_FILE, PATIENTS_FILE, expect_free_space
from cxr.inference.scoring.sources import ImageSource, ObjectStoreImages, open_folder
from cxr.storage.contents import SourceContents


@dataclass(frozen=True)
class OutsideData:
    """A data set that a model was not made from.

    Attributes:
        images: its images.
        card: its name, kind and source, from its own card if it has one. Else the source is what the user named: the
            address of an object store, or the name of the folder or archive, without the folders of this machine.
        table: what ``patients.csv`` beside the images says about them, all text; None if there is none.
    """

    images: ImageSource
    card: DatasetCard
    table: pd.DataFrame | None

    @property
    def patients(self) -> Mapping[str, str] | None:
        """Path to patient, as the table says it; None without a table."""
        return None if self.table is None else dict(zip(self.table["path"], self.table["patient"], strict=True))


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
    table = None
    images: ImageSource
    if address.startswith("s3://"):
        images = ObjectStoreImages(address, endpoint_url=endpoint_url)
        address = address.rstrip("/")
        card = DatasetCard(address.rpartition("/")[2], "patients", address, 0, 0, "unknown")
    else:
        folder = Path(address).expanduser()
        named = folder.resolve().name
        if folder.is_file():
            contents = open_archive(folder, max_bytes=max_bytes)
            folder = scratch / _without_suffix(folder.name)
            _unpack(contents, folder)
        elif not folder.is_dir():
            raise MissingInputError(
                f"expected a folder, an archive ({', '.join(ARCHIVE_SUFFIXES)}) or s3://bucket/prefix, received "
                f"data={address}; check the spelling"
            )
        images, card = open_folder(folder), DatasetCard.read(folder)
        if not (folder / DATASET_FILE).exists():
            card = replace(card, source=named)
        if (folder / PATIENTS_FILE).is_file():
            table = read_patient_table(folder / PATIENTS_FILE)
    if not images.files:
        raise SourceError(
            f"expected images, received data={images.name} with none; name a folder, archive or prefix that holds "
            "JPEG, PNG or DICOM files, at any depth"
        )
    return OutsideData(images, card, table)


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

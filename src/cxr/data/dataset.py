"""The data folder: its classes, its layout on disk and the card that says where it came from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from cxr.errors import SourceError
from cxr.files import BOXES_FILE, DATASET_FILE, PATIENTS_FILE, write_json

NORMAL = "NORMAL"
PNEUMONIA = "PNEUMONIA"
CLASSES: tuple[str, str] = (NORMAL, PNEUMONIA)
"""Folder names of the two labels; the index in this tuple is the training target (0, 1)."""

SUBTYPES: tuple[str, ...] = ("normal", "bacteria", "virus")
OFFICIAL_SPLITS: tuple[str, ...] = ("train", "val", "test")
"""Folders of the published layout; a data folder may also hold the class folders directly."""

SIDE_FILES: tuple[str, ...] = (DATASET_FILE, BOXES_FILE, PATIENTS_FILE)
"""Side files that a data folder may hold: its card, the boxes of opacities, and the table of patients."""

DatasetKind = Literal["phantom", "patients"]


@dataclass(frozen=True)
class DatasetCard:
    """The dataset card: origin of a data folder, stored beside the images as ``dataset.json``.

    Attributes:
        name: short name used in reports and experiment names, e.g. ``"kermany"`` or ``"phantom"``.
        kind: ``"phantom"`` for drawn images, ``"patients"`` for radiographs of people. Models trained on
            phantoms say so everywhere and never replace a champion trained on patients.
        source: address of the source, e.g. ``"phantom"`` or an archive's file name, without folders of a machine.
        images: number of image files.
        bytes: total size of the image files.
        licence: licence of the images, with attribution, or ``"unknown"``.
    """

    name: str
    kind: DatasetKind
    source: str
    images: int
    bytes: int
    licence: str

    def renamed(self, name: str) -> DatasetCard:
        """Give the data set another name; this card stays as it is."""
        return replace(self, name=name)

    def write(self, folder: Path) -> None:
        """Write the card into a data folder.

        Args:
            folder: the data folder.
        """
        write_json(folder / DATASET_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> DatasetCard:
        """Read the card of a data folder.

        Args:
            folder: the data folder.

        Returns:
            The card; a folder without one counts as images of patients of unknown origin.

        Raises:
            SourceError: if the card exists and cannot be read.
        """
        path = folder / DATASET_FILE
        if not path.exists():
            return cls(folder.resolve().name, "patients", "unknown", 0, 0, "unknown")
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise SourceError(
                f"expected a data card with the fields of DatasetCard, received {path}: {error}; correct it, or move "
                f"{folder} away and run `cxr fetch` again"
            ) from error

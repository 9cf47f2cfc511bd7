"""A split of the images into train, validation and test, with the origin of the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import CLASSES, DatasetCard
from cxr.errors import DataError
from cxr.files import SPLITS_FILE, read_json
from cxr.tables import read_table


@dataclass(frozen=True)
class SplitData:
    """A split with the origin of its images.

    Attributes:
        frame: the table of the split: one row per image with the columns path, label, split and others.
        dataset: description of the data set.
        data_digest: content version of the images.
        protocol: name of the split, e.g. ``"grouped"``.
        digest: digest of the assignment image -> split.
    """

    frame: pd.DataFrame
    dataset: DatasetCard
    data_digest: str
    protocol: str
    digest: str

    @classmethod
    def read(cls, manifest: Path, splits: Path) -> SplitData:
        """Read the folders that the steps validate and resplit wrote.

        Args:
            manifest: folder of the manifest.
            splits: folder of the split.

        Returns:
            The split.
        """
        summary = read_json(manifest / "summary.json")
        achieved = read_json(splits / "achieved.json")
        return cls(
            read_table(splits / SPLITS_FILE),
            DatasetCard.read(manifest),
            summary["digest"],
            achieved["protocol"],
            achieved["digest"],
        )

    def images_of(self, split: str, *, most: int | None = None) -> tuple[list[str], NDArray[np.int64]]:
        """List the images of one side.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.
            most: most images, at least one per class; if there are more, these are drawn, always the same ones, with
                the classes in the same shares. None for all.

        Returns:
            Paths, and labels ``(images,)`` int64, 0 for NORMAL and 1 for PNEUMONIA.

        Raises:
            DataError: if that side has no image of a class.
        """
        rows = self.frame[self.frame["split"] == split]
        labels = rows["label"].map({name: number for number, name in enumerate(CLASSES)}).to_numpy(dtype=np.int64)
        if len(set(labels)) < len(CLASSES):
            raise DataError(
                f"expected images of both classes in {split}, received {rows['label'].value_counts().to_dict()}; "
                "run `cxr resplit` with other ratios or more images"
            )
        paths = [str(path) for path in rows["path"]]
        if most is not None and most < len(paths):
            from sklearn.model_selection import train_test_split

            drawn = np.sort(
                train_test_split(np.arange(len(paths)), train_size=most, stratify=labels, random_state=0)[0]
            )
            paths, labels = [paths[number] for number in drawn], labels[drawn]
        return paths, np.asarray(labels, dtype=np.int64)

"""Two models that were judged at different times, on the images that neither has learned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr.data.dataset import CLASSES
from cxr.errors import DataError
from cxr.evaluation.evaluate import TEST, VALIDATION

TRAIN = "train"
COLUMNS = ("sha256", "path", "group", "label", "split", "probability")
"""Columns of judged images: every image of a split by its content, with a probability where it was judged."""
LEAST_PER_CLASS = 10
"""Images of each class that a side needs for a comparison."""


@dataclass(frozen=True)
class Pair:
    """Images for a comparison.

    Attributes:
        rows: validation and test images of the first model that the second has not learned from: sha256, path,
            group, label, split, ``ours`` and ``theirs`` (calibrated probabilities, NaN in ``theirs`` where the
            second model has not been asked yet).
        set_aside: images left out.
    """

    rows: pd.DataFrame
    set_aside: int

    @property
    def unknown(self) -> pd.DataFrame:
        """Rows that the second model has to be asked about."""
        return self.rows[self.rows["theirs"].isna()]

    def answered(self, probability: pd.Series) -> Pair:
        """Add answers of the second model.

        Args:
            probability: calibrated probabilities, with the index of :attr:`unknown`.

        Returns:
            A new pair.
        """
        return Pair(self.rows.assign(theirs=self.rows["theirs"].fillna(probability)), self.set_aside)

    def too_few(self) -> str:
        """Say whether too few images are left.

        Returns:
            Why there can be no comparison; empty if there can.
        """
        for split in (VALIDATION, TEST):
            counts = self.rows.loc[self.rows["split"] == split, "label"].value_counts()
            for label in CLASSES:
                if (found := int(counts.get(label, 0))) < LEAST_PER_CLASS:
                    return (
                        f"expected at least {LEAST_PER_CLASS} {split} images of {label} that it has not learned from, "
                        f"received {found}"
                    )
        return ""

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Split into what :func:`cxr.evaluation.comparison.compare` takes.

        Returns:
            Predictions of the first and of the second model.
        """
        common = self.rows[["path", "group", "label", "split"]]
        return common.assign(probability=self.rows["ours"]), common.assign(probability=self.rows["theirs"])


def judged_images(splits: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Put every image of a split beside what a model said about it.

    Args:
        splits: assignment with the columns of :data:`COLUMNS` but probability.
        predictions: validation and test images with path, split and probability (calibrated).

    Returns:
        The columns :data:`COLUMNS`; probability is NaN for training images.

    Raises:
        DataError: if the predictions belong to another split.
    """
    table = splits[[name for name in COLUMNS if name != "probability"]].merge(
        predictions[["path", "split", "probability"]], on="path", how="left", suffixes=("", "_judged")
    )
    judged = table["split"].isin((VALIDATION, TEST))
    strangers = set(predictions["path"]) - set(table["path"])
    if strangers or (table["split_judged"] != table["split"])[judged].any():
        raise DataError(
            f"expected the split that the model was judged on, received one of {len(splits)} images that differs; "
            "give the folder that `cxr evaluate` has read (splits)"
        )
    return table[list(COLUMNS)]


def pair(ours: pd.DataFrame, theirs: pd.DataFrame, *, same_dataset: bool) -> Pair:
    """Find the images on which two models can be compared fairly.

    An image is set aside if the second model was trained on it or on another image of its patient; a test image
    also if the second model's threshold and epochs were chosen on it.

    Args:
        ours: judged images of the first model, :data:`COLUMNS`.
        theirs: judged images of the second.
        same_dataset: whether both name the patients alike.

    Returns:
        The pair.
    """
    rows = ours[ours["split"].isin((VALIDATION, TEST))].reset_index(drop=True)
    known = theirs.drop_duplicates("sha256").set_index("sha256")

    def met_in(*sides: str) -> pd.Series:
        part = theirs[theirs["split"].isin(sides)]
        return rows["sha256"].isin(part["sha256"]) | (same_dataset & rows["group"].isin(part["group"]))

    aside = met_in(TRAIN) | ((rows["split"] == TEST) & met_in(VALIDATION))
    kept = rows[~aside].rename(columns={"probability": "ours"})
    kept = kept.assign(theirs=kept["sha256"].map(known["probability"]).astype(np.float64))
    return Pair(kept.reset_index(drop=True), int(aside.sum()))

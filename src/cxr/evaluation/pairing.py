"""Predictions of two models that were evaluated at different times, on images that neither was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr.data.dataset import CLASSES
from cxr.data.split_table import TEST, TRAIN, VALIDATION
from cxr.errors import DataError

COLUMNS = ("sha256", "path", "group", "label", "split", "probability")
"""Columns of a split with predictions: every image by its content, with a probability where it was predicted."""
MIN_PER_CLASS = 10
"""Number of images of each class that validation and test need for a comparison."""


@dataclass(frozen=True)
class PairedPredictions:
    """Images of a comparison, with the predictions of both models.

    Attributes:
        rows: validation and test images of the first model that the second was not trained on: sha256, path, group,
            label, split, ``ours`` and ``theirs`` (calibrated probabilities; NaN in ``theirs`` where the second model
            has not predicted the image yet).
        excluded: number of images left out.
    """

    rows: pd.DataFrame
    excluded: int

    @property
    def missing(self) -> pd.DataFrame:
        """Rows that the second model has not predicted yet."""
        return self.rows[self.rows["theirs"].isna()]

    def with_missing(self, probability: pd.Series) -> PairedPredictions:
        """Add missing predictions of the second model.

        Args:
            probability: calibrated probabilities, with the index of :attr:`missing`.

        Returns:
            A new object.
        """
        return PairedPredictions(self.rows.assign(theirs=self.rows["theirs"].fillna(probability)), self.excluded)

    def shortage(self) -> str:
        """Check that enough images are left.

        Returns:
            Why a comparison is impossible; empty if it is possible.
        """
        for split in (VALIDATION, TEST):
            counts = self.rows.loc[self.rows["split"] == split, "label"].value_counts()
            for label in CLASSES:
                if (count := int(counts.get(label, 0))) < MIN_PER_CLASS:
                    return (
                        f"expected at least {MIN_PER_CLASS} {split} images of {label} that it has not learned from, "
                        f"received {count}"
                    )
        return ""

    def prediction_tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Split into the two arguments of :func:`cxr.evaluation.comparison.compare_models`.

        Returns:
            Predictions of the first and of the second model.
        """
        common = self.rows[["path", "group", "label", "split"]]
        return common.assign(probability=self.rows["ours"]), common.assign(probability=self.rows["theirs"])


def split_with_predictions(
    splits: pd.DataFrame, predictions: pd.DataFrame, column: str = "probability"
) -> pd.DataFrame:
    """Join the images of a split with the predictions of a model.

    Args:
        splits: assignment with the columns :data:`COLUMNS`, except probability.
        predictions: validation and test images with path, split and ``column``.
        column: the calibrated probability, or something else that was measured in each image.

    Returns:
        The columns :data:`COLUMNS`, with ``column`` in place of probability; it is NaN for training images.

    Raises:
        DataError: if the predictions belong to another split.
    """
    table = splits[[name for name in COLUMNS if name != "probability"]].merge(
        predictions[["path", "split", column]], on="path", how="left", suffixes=("", "_predicted")
    )
    is_predicted = table["split"].isin((VALIDATION, TEST))
    unknown_paths = set(predictions["path"]) - set(table["path"])
    if unknown_paths or (table["split_predicted"] != table["split"])[is_predicted].any():
        raise DataError(
            f"expected the split that the model was evaluated on, received one of {len(splits)} images that differs; "
            "give the folder that `cxr evaluate` has read (splits)"
        )
    return table[[column if name == "probability" else name for name in COLUMNS]]


def pair_predictions(ours: pd.DataFrame, theirs: pd.DataFrame, *, same_dataset: bool) -> PairedPredictions:
    """Find the images on which two models can be compared fairly.

    An image is excluded if the second model was trained on it or on another image of its patient. A test image is also
    excluded if the threshold and the epoch of the second model were chosen on it.

    Args:
        ours: split with predictions of the first model, :data:`COLUMNS`.
        theirs: split with predictions of the second.
        same_dataset: whether both use the same names for patients.

    Returns:
        The paired predictions.
    """
    rows = ours[ours["split"].isin((VALIDATION, TEST))].reset_index(drop=True)
    by_content = theirs.drop_duplicates("sha256").set_index("sha256")

    def occurs_in(*splits: str) -> pd.Series:
        images = theirs[theirs["split"].isin(splits)]
        return rows["sha256"].isin(images["sha256"]) | (same_dataset & rows["group"].isin(images["group"]))

    is_excluded = occurs_in(TRAIN) | ((rows["split"] == TEST) & occurs_in(VALIDATION))
    paired = rows[~is_excluded].rename(columns={"probability": "ours"})
    paired = paired.assign(theirs=paired["sha256"].map(by_content["probability"]).astype(np.float64))
    return PairedPredictions(paired.reset_index(drop=True), int(is_excluded.sum()))

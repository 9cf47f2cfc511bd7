"""What can be measured on images whose opacities nobody has marked, such as those of Kermany et al."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.data.dataset import PNEUMONIA
from cxr.data.split_table import TEST
from cxr.errors import DataError
from cxr.evaluation.bootstrap import bootstrap
from cxr.evaluation.metrics import Floats, auroc
from cxr.evaluation.shortcut_checks import lung_field
from cxr.evaluation.training_data import check_recipe_fits
from cxr.files import MANIFEST_FILE
from cxr.images.prepared import PreparedImages
from cxr.regions.average_precision import IOU_THRESHOLDS
from cxr.regions.matching import BOX_COLUMNS, image_positions, match_predictions
from cxr.regions.operating_point import RegionOperatingPoint
from cxr.regions.predictor import RegionPredictor
from cxr.tables import read_table
from cxr.training.split_data import SplitData

_GRID = 512
"""Lung field and boxes are compared on so many points per side of the image."""


@dataclass(frozen=True, eq=False)
class UnmarkedImages:
    """The test images of another data set than the detector's, which has no boxes.

    Attributes:
        images: one row per image with the columns path, group, label, height and width.
        prepared: the prepared images.
        data: the split that they are from.
    """

    images: pd.DataFrame
    prepared: PreparedImages
    data: SplitData

    @classmethod
    def read(cls, manifest: Path, splits: Path, prepared: Path) -> UnmarkedImages:
        """Read the folders that the steps validate, resplit and preprocess wrote.

        Args:
            manifest: folder of the manifest.
            splits: folder of the split.
            prepared: folder of the prepared images.

        Returns:
            The test images of the split.

        Raises:
            MissingInputError: if a file of the prepared images is missing.
        """
        data = SplitData.read(manifest, splits)
        images = data.frame.loc[data.frame["split"] == TEST, ["path", "group", "label"]].reset_index(drop=True)
        sizes = read_table(manifest / MANIFEST_FILE, columns=["path", "height", "width"])
        return cls(images.merge(sizes, on="path", validate="one_to_one"), PreparedImages.open(prepared), data)

    def evaluate(
        self,
        predictor: RegionPredictor,
        point: RegionOperatingPoint,
        *,
        batch_size: int,
        resamples: int,
        seed: int,
    ) -> dict[str, Any]:
        """Draw a detector's boxes in these images and measure them.

        Args:
            predictor: the detector.
            point: its operating point, chosen on images with boxes.
            batch_size: images per network call.
            resamples: number of bootstrap replicates over patients.
            seed: seed of the bootstrap.

        Returns:
            ``data`` (name, kind, protocol), and the result of :func:`evaluate_without_boxes`.

        Raises:
            DataError: if the detector was trained on this data set, or its images have another recipe.
        """
        check_recipe_fits(predictor.metadata, self.prepared)
        if predictor.metadata.data_digest == self.data.data_digest:
            raise DataError(
                "expected unmarked images of another data set than the detector's, received data_digest="
                f"{self.data.data_digest} for both; leave them out: the test images of this data set are measured"
            )
        predictions = predictor.propose_in_originals(self.prepared, self.images, batch_size=batch_size)
        return {
            "data": {
                "name": self.data.dataset.name,
                "kind": self.data.dataset.kind,
                "protocol": self.data.protocol,
            },
            **evaluate_without_boxes(self.images, predictions, point, resamples=resamples, seed=seed),
        }


def evaluate_without_boxes(
    images: pd.DataFrame, predictions: pd.DataFrame, point: RegionOperatingPoint, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Measure what can be measured on images whose opacities nobody has marked.

    Args:
        images: images with the columns path, group, label, height and width.
        predictions: predicted boxes with :data:`cxr.regions.matching.PREDICTION_COLUMNS`.
        point: the detector's operating point, chosen on other images that have boxes.
        resamples: number of bootstrap replicates over patients.
        seed: seed of the bootstrap.

    Returns:
        ``images``, ``patients`` and ``boxes`` (that count), and value, low and high of ``auroc`` (pneumonia against
        normal by the highest score of an image), ``area_in_lungs`` (share of the area of all boxes that count which
        lies inside of :func:`cxr.evaluation.shortcut_checks.lung_field`, the area of each image being 1),
        and ``area_in_lungs_by_chance`` (the share of the image that this field covers).

    Raises:
        DataError: if a prediction is wrong.
    """
    paths, labels = images["path"].tolist(), (images["label"] == PNEUMONIA).to_numpy()
    predictions = point.resize(images, predictions[predictions["path"].isin(paths)])
    none = pd.DataFrame(columns=BOX_COLUMNS)
    highest = match_predictions(paths, none, predictions, IOU_THRESHOLDS).highest_scores()
    boxes = predictions[predictions["score"] >= point.threshold]
    area, inside = _areas_in_lungs(images, boxes)

    def statistic(weight: Floats) -> dict[str, Floats]:
        with np.errstate(invalid="ignore"):
            return {"auroc": auroc(labels, highest, weight), "area_in_lungs": (weight @ inside) / (weight @ area)}

    result = bootstrap(statistic, labels, images["group"], resamples=resamples, seed=seed)
    return {
        "images": len(images),
        "patients": result.groups,
        "boxes": len(boxes),
        **{name: interval.to_dict() for name, interval in result.intervals.items()},
        "area_in_lungs_by_chance": float(lung_field(_GRID, _GRID).mean()),
    }


def _areas_in_lungs(images: pd.DataFrame, boxes: pd.DataFrame) -> tuple[Floats, Floats]:
    """Area of the boxes of each image, and the part of it inside the lung field, as shares of the image.

    The lung field is given in shares of the sides, so that one grid serves images of all sizes.
    """
    inside = np.zeros((_GRID + 1, _GRID + 1))
    inside[1:, 1:] = lung_field(_GRID, _GRID).cumsum(axis=0).cumsum(axis=1)
    sizes = images.set_index("path")[["width", "height"]].loc[boxes["path"]].to_numpy(dtype=np.float64)
    rows = boxes[BOX_COLUMNS[1:]].to_numpy(dtype=np.float64)
    corners = np.hstack([rows[:, :2] / sizes, (rows[:, :2] + rows[:, 2:]) / sizes])
    left, top, right, bottom = np.rint(_GRID * np.clip(corners, 0, 1)).astype(np.int64).T
    lungs = inside[bottom, right] - inside[top, right] - inside[bottom, left] + inside[top, left]
    image = image_positions(images["path"].tolist(), boxes)
    area, covered = np.zeros(len(images)), np.zeros(len(images))
    np.add.at(area, image, (right - left) * (bottom - top) / _GRID**2)
    np.add.at(covered, image, lungs / _GRID**2)
    return area, covered

"""Boxes that a detector must beat: the mean box of each side, and boxes around the heat of a classifier.

**Prior boxes.** Opacities lie where lungs are, so that a fixed box per side already hits some of them. Drawn in every
image, or with the probability that a classifier gives to the image. In the training labels of the RSNA challenge two
such boxes score .018 on all images, and .083 with a classifier that is always right.

**Heat boxes.** The classifier's Grad-CAM (:mod:`cxr.inference.explanation`) is cut at a level of its heat, and each
connected part gets a box. The level is chosen on validation, see :mod:`cxr.regions.operating_point`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.errors import DataError
from cxr.evaluation.metrics import Floats
from cxr.inference.explanation import MIN_REGION, grad_cam
from cxr.inference.predictor import Predictor
from cxr.regions.matching import BOX_COLUMNS, PREDICTION_COLUMNS
from cxr.regions.operating_point import HEAT_LEVEL


@dataclass(frozen=True, eq=False)
class PriorBoxes:
    """The mean box of each side of the image.

    Attributes:
        boxes: (sides, 4) x, y, width, height as shares of the image's width and height.
        frequency: (sides,) share of the training images with opacities that have one on this side.
    """

    boxes: Floats
    frequency: Floats

    @classmethod
    def fit(cls, images: pd.DataFrame, boxes: pd.DataFrame) -> PriorBoxes:
        """Average the boxes of the training images on each side.

        Args:
            images: the training images, with path, height and width in pixels.
            boxes: their opacities, with path, x, y, width and height; a box belongs to the side of its centre.

        Returns:
            The prior boxes; without a side that has no opacity.

        Raises:
            DataError: if the images have no opacities.
        """
        sizes = images.set_index("path")[["width", "height"]]
        boxes = boxes[boxes["path"].isin(sizes.index)]
        if boxes.empty:
            raise DataError(
                f"expected opacities in the training images, received none in {len(images)} images; "
                "choose a data set with boxes"
            )
        scale = np.tile(sizes.loc[boxes["path"]].to_numpy(dtype=np.float64), 2)
        shares = boxes[BOX_COLUMNS[1:]].to_numpy(dtype=np.float64) / scale
        is_right = shares[:, 0] + shares[:, 2] / 2 >= 0.5
        sides = [side for side in (~is_right, is_right) if side.any()]
        images_with_opacity = boxes["path"].nunique()
        return cls(
            np.stack([shares[side].mean(axis=0) for side in sides]),
            np.array([boxes["path"][side].nunique() / images_with_opacity for side in sides]),
        )

    def predict(self, images: pd.DataFrame, probability: Mapping[str, float] | None = None) -> pd.DataFrame:
        """Draw the boxes in images.

        Args:
            images: the images, with path, height and width in pixels.
            probability: path to the probability of pneumonia that a classifier gives; None draws the boxes in every
                image alike.

        Returns:
            Columns path, x, y, width, height and score: the frequency of the side, times the probability. So a
            threshold can leave out the rarer side, or the images that the classifier calls normal.
        """
        tables = []
        for box, frequency in zip(self.boxes, self.frequency.tolist(), strict=True):
            table = images[["path"]].reset_index(drop=True)
            for column, share, side in zip(BOX_COLUMNS[1:], box.tolist(), ("width", "height") * 2, strict=True):
                table[column] = share * images[side].to_numpy(dtype=np.float64)
            factors = 1.0 if probability is None else table["path"].map(probability).to_numpy(dtype=np.float64)
            tables.append(table.assign(score=frequency * factors))
        return pd.concat(tables, ignore_index=True)


def heat_boxes(heat: NDArray[np.float32], levels: Sequence[float]) -> pd.DataFrame:
    """Draw a box around each connected part of a heat map that is at least so hot.

    Args:
        heat: ``(height, width)`` float32 in [0, 1], the result of :func:`cxr.inference.explanation.grad_cam`.
        levels: levels of the heat in (0, 1] to cut at.

    Returns:
        Columns heat_level, x, y, width, height and score, the highest heat of the part. Parts below
        :data:`cxr.inference.explanation.MIN_REGION` of the image get no box, as they get no outline on the page.
    """
    rows = []
    for level in levels:
        count, labels, stats, _ = cv2.connectedComponentsWithStats(np.uint8(heat >= level), connectivity=8)
        for part in range(1, count):
            x, y, width, height, area = (int(value) for value in stats[part])
            if area >= MIN_REGION * heat.size:
                inside = (slice(y, y + height), slice(x, x + width))
                rows.append((level, x, y, width, height, float(heat[inside][labels[inside] == part].max())))
    return pd.DataFrame(rows, columns=[HEAT_LEVEL, *PREDICTION_COLUMNS[1:]])


def predict_heat_boxes(
    predictor: Predictor,
    read_image: Callable[[str], NDArray[np.uint8]],
    probability: Mapping[str, float],
    levels: Sequence[float],
) -> pd.DataFrame:
    """Draw boxes around the Grad-CAM heat of a classifier.

    Args:
        predictor: the classifier, or an ensemble.
        read_image: path to the decoded image, ``(height, width)``, uint8, 0 black to 255 white.
        probability: path to the probability of pneumonia that the classifier gives, for each image to predict.
        levels: levels of the heat to cut at.

    Returns:
        Columns path, x, y, width, height, score and heat_level. The score is the highest heat of the part times the
        probability: heat maps have 1 as their highest value in every image.
    """
    tables = []
    for path, chance in tqdm(probability.items(), desc="heat boxes", unit="image", disable=None):
        table = heat_boxes(grad_cam(predictor, read_image(path)), levels)
        if len(table):
            tables.append(table.assign(path=path, score=chance * table["score"]))
    columns = [*PREDICTION_COLUMNS, HEAT_LEVEL]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)

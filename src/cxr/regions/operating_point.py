"""Chooses on validation which predicted boxes count and how large they are drawn.

A detector proposes many boxes with scores. The challenge's mean average precision needs a decision: a threshold of the
score. Besides, readers do not agree on the border of an opacity, and boxes that are a little smaller or larger than
what the network learnt may agree better with the annotation on average. Teams of the RSNA challenge shrank their boxes
(to 87.5 %, for example). Both are chosen here, for every method that is compared, on validation images only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxr.errors import DataError
from cxr.evaluation.operating_point import candidate_thresholds
from cxr.regions.average_precision import IOU_THRESHOLDS, mean_average_precisions
from cxr.regions.matching import BOX_COLUMNS, match_predictions

HEAT_LEVEL = "heat_level"
"""Column of the predictions of a method whose boxes come from heat maps: the level that the heat was cut at. There are
boxes for several levels, and validation chooses one."""


@dataclass(frozen=True)
class RegionOperatingPoint:
    """Which predicted boxes of a method count.

    Attributes:
        threshold: a box counts when its score is at least this.
        box_scale: factor of its width and height; its centre stays.
        heat_level: level of the heat that its boxes come from; None for methods without heat.
        mean_average_precision: what this achieves on the validation images.
    """

    threshold: float
    box_scale: float
    heat_level: float | None
    mean_average_precision: float

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return asdict(self)

    def resize(self, images: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
        """Select the heat level and scale the boxes; scores below the threshold stay, for curves.

        Args:
            images: one row per image with path, height and width.
            predictions: predicted boxes with path, x, y, width, height and score.

        Returns:
            Boxes with the same columns.
        """
        if self.heat_level is not None:
            predictions = predictions[predictions[HEAT_LEVEL] == self.heat_level].drop(columns=HEAT_LEVEL)
        return scale_boxes(images, predictions, self.box_scale)


def scale_boxes(images: pd.DataFrame, predictions: pd.DataFrame, scale: float) -> pd.DataFrame:
    """Scale boxes about their centres, and clip them to their images.

    Args:
        images: one row per image with path, height and width in pixels.
        predictions: boxes with the columns path, x, y, width and height in pixels of the original, and others.
        scale: factor of width and height.

    Returns:
        The boxes, in the same order, float64. Boxes outside of their image have no width or no height.
    """
    sizes = images.set_index("path")[["width", "height"]].loc[predictions["path"]].to_numpy(dtype=np.float64)
    rows = predictions[BOX_COLUMNS[1:]].to_numpy(dtype=np.float64)
    centre, half = rows[:, :2] + rows[:, 2:] / 2, rows[:, 2:] * scale / 2
    low, high = np.clip(centre - half, 0, sizes), np.clip(centre + half, 0, sizes)
    columns = dict(zip(BOX_COLUMNS[1:], np.hstack([low, high - low]).T, strict=True))
    return predictions.assign(**columns).reset_index(drop=True)


def choose_region_operating_point(
    images: pd.DataFrame, boxes: pd.DataFrame, predictions: pd.DataFrame, *, box_scales: Sequence[float]
) -> RegionOperatingPoint:
    """Choose what gives the highest mean average precision. Pass validation images only, never test images.

    All combinations of heat level (if any), box scale and threshold are tried. Thresholds lie midway between two
    neighbouring scores. Among equals the scale closest to 1 wins, then the lowest heat level, then the lowest
    threshold, which misses the fewest opacities.

    Args:
        images: the validation images, with path, height and width.
        boxes: their opacities, with path, x, y, width and height.
        predictions: predicted boxes with path, x, y, width, height and score, and :data:`HEAT_LEVEL` if the method's
            boxes come from heat maps.
        box_scales: factors to try.

    Returns:
        The operating point. Without any prediction its threshold is 1.

    Raises:
        DataError: if no image has an opacity.
    """
    paths = images["path"].tolist()
    if not boxes["path"].isin(paths).any():
        raise DataError(
            f"expected opacities in the validation images, received none in {len(paths)} images; "
            "choose a data set with boxes, or another split"
        )
    predictions = predictions[predictions["path"].isin(paths)]
    levels = np.unique(predictions[HEAT_LEVEL]).tolist() if HEAT_LEVEL in predictions else [None]
    points = [RegionOperatingPoint(1.0, 1.0, levels[0] if levels else None, 0.0)]
    for scale in sorted(box_scales, key=lambda scale: (abs(scale - 1), scale)):
        for level in levels:
            candidates = RegionOperatingPoint(np.nan, scale, level, np.nan).resize(images, predictions)
            if candidates.empty:
                continue
            matched = match_predictions(paths, boxes, candidates, IOU_THRESHOLDS)
            thresholds = candidate_thresholds(matched.score)
            values = np.round(mean_average_precisions(matched, thresholds), 12)
            best = int(values.argmax())
            points.append(RegionOperatingPoint(float(thresholds[best]), scale, level, float(values[best])))
    # Of equals max takes the first; "no prediction" comes first and wins only if nothing is better than 0.
    return max(points, key=lambda point: point.mean_average_precision)

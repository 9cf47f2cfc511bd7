"""Which predicted box hits which opacity. Every figure of a detector is counted from this.

Predictions of an image are gone through by falling score, as the RSNA Pneumonia Detection Challenge does. A prediction
takes the opacity with the highest intersection over union (IoU) that no earlier prediction has taken, if that IoU is
**above** the threshold; an IoU equal to the threshold is no hit. A second box on the same opacity is a false positive.
Predictions with equal scores keep the order of the table; the challenge leaves their order open.

Whether a prediction hits depends on predictions with higher scores only. So one matching serves every threshold of the
score: leaving out predictions below it changes nothing for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.boxes import to_corners
from cxr.errors import DataError
from cxr.evaluation.metrics import Floats
from cxr.regions.overlap import intersection_over_union

BOX_COLUMNS = ["path", "x", "y", "width", "height"]
"""Columns of a table of boxes: one row per box, in pixels of the original."""

PREDICTION_COLUMNS = [*BOX_COLUMNS, "score"]


@dataclass(frozen=True)
class MatchedPredictions:
    """The predicted boxes of some images, by falling score, each with the thresholds at which it hits an opacity.

    Attributes:
        iou_thresholds: the thresholds of the intersection over union.
        opacities: (images,) number of opacities of each image, int64.
        image: (predictions,) position of each prediction's image, int64.
        score: (predictions,) falling, float64.
        hits: (predictions, thresholds) whether the prediction hits an opacity.
    """

    iou_thresholds: tuple[float, ...]
    opacities: NDArray[np.int64]
    image: NDArray[np.int64]
    score: Floats
    hits: NDArray[np.bool_]

    def highest_scores(self) -> Floats:
        """Return the highest score of each image, (images,); 0 for an image without predictions."""
        highest = np.zeros(self.opacities.size)
        np.maximum.at(highest, self.image, self.score)
        return highest


def match_predictions(
    paths: Sequence[str], boxes: pd.DataFrame, predictions: pd.DataFrame, iou_thresholds: Sequence[float]
) -> MatchedPredictions:
    """Match the predictions of some images with their opacities.

    Args:
        paths: the images; boxes and predictions of other images are left out.
        boxes: the opacities, with :data:`BOX_COLUMNS`.
        predictions: predicted boxes with :data:`PREDICTION_COLUMNS`; scores in [0, 1].
        iou_thresholds: a prediction hits an opacity if their IoU is above the threshold.

    Returns:
        The matched predictions.

    Raises:
        DataError: if a score is not in [0, 1], or a box is not finite.
    """
    predictions = predictions[predictions["path"].isin(paths)]
    boxes = boxes[boxes["path"].isin(paths)]
    scores = predictions["score"].to_numpy(dtype=np.float64)
    corners = to_corners(predictions[BOX_COLUMNS[1:]].to_numpy(dtype=np.float64))
    wrong = predictions["path"][~((scores >= 0) & (scores <= 1)) | ~np.isfinite(corners).all(axis=1)]
    if len(wrong):
        raise DataError(
            f"expected finite boxes with scores in 0 .. 1, received others in {wrong.nunique()} images: "
            f"{', '.join(wrong.unique()[:10])}; predict again"
        )
    order = np.argsort(-scores, kind="stable")
    image = image_positions(paths, predictions)[order]
    corners = corners[order]
    image_of_box = image_positions(paths, boxes)
    true_corners = to_corners(boxes[BOX_COLUMNS[1:]].to_numpy(dtype=np.float64))
    thresholds = np.asarray(iou_thresholds, dtype=np.float64)
    hits = np.zeros((order.size, thresholds.size), dtype=bool)
    members = pd.Series(image).groupby(image).indices
    opacities_of = pd.Series(image_of_box).groupby(image_of_box).indices
    for number in members.keys() & opacities_of.keys():
        rows = members[number]
        overlap = intersection_over_union(corners[rows], true_corners[opacities_of[number]])
        hits[rows] = _hits(overlap, thresholds)
    opacities = np.bincount(image_of_box, minlength=len(paths)).astype(np.int64)
    return MatchedPredictions(tuple(thresholds.tolist()), opacities, image, scores[order], hits)


def image_positions(paths: Sequence[str], boxes: pd.DataFrame) -> NDArray[np.int64]:
    """Find the position of each box's image.

    Args:
        paths: the images.
        boxes: boxes with the column path, all of these images.

    Returns:
        (boxes,) positions in ``paths``.
    """
    position = {path: number for number, path in enumerate(paths)}
    return np.array([position[path] for path in boxes["path"]], dtype=np.int64)


def _hits(overlap: Floats, thresholds: Floats) -> NDArray[np.bool_]:
    """Match one image: IoU (predictions, opacities), predictions by falling score, to (predictions, thresholds)."""
    is_free = np.ones((overlap.shape[1], thresholds.size), dtype=bool)
    hits = np.zeros((overlap.shape[0], thresholds.size), dtype=bool)
    for number, row in enumerate(overlap[:, :, np.newaxis]):
        candidates = np.where(is_free & (row > thresholds), row, -1.0)
        best = candidates.argmax(axis=0)
        hits[number] = candidates.max(axis=0) >= 0
        is_free[best[hits[number]], np.flatnonzero(hits[number])] = False
    return hits

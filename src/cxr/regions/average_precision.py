"""The mean average precision of the RSNA Pneumonia Detection Challenge (Kaggle 2018, page "Evaluation").

For an image and a threshold of the intersection over union (IoU) the challenge calls TP / (TP + FP + FN) its precision.
Hits are counted as in :mod:`cxr.regions.matching`. The average precision of an image is the mean over the thresholds
0.40, 0.45 .. 0.75, and the figure of a method is the mean over images. An image without opacities counts 0 if there is
any prediction in it, and is left out if there is none. So the figure has no credit for a normal image without boxes,
and it depends on the threshold of the score.

This is not the area under a curve of precision over recall, which COCO and PASCAL VOC call by the same name.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cxr.evaluation.metrics import Floats
from cxr.regions.matching import MatchedPredictions

IOU_THRESHOLDS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75)
"""Thresholds of the challenge. They are written out, because sums of 0.05 miss some of them by a bit."""


def image_average_precisions(matched: MatchedPredictions, threshold: float) -> Floats:
    """Compute the average precision of each image.

    Args:
        matched: the predictions, matched at :data:`IOU_THRESHOLDS`.
        threshold: predictions with lower scores are left out.

    Returns:
        (images,), in [0, 1]; NaN for an image with neither an opacity nor a prediction.
    """
    images = matched.opacities.size
    used = matched.score >= threshold
    predicted = np.bincount(matched.image[used], minlength=images)
    hits = np.zeros((images, len(matched.iou_thresholds)))
    np.add.at(hits, matched.image[used], matched.hits[used])
    # TP + FP is the number of predictions, TP + FN that of opacities.
    return _mean_over_thresholds(hits, predicted, matched.opacities)


def mean_average_precision(per_image: Floats, weight: ArrayLike | None = None) -> Floats:
    """Average over images.

    Args:
        per_image: (images,), the result of :func:`image_average_precisions`.
        weight: (..., images), number of times that each image is counted; once each by default.

    Returns:
        (...), in [0, 1]; NaN if every image is left out.
    """
    counts = np.isfinite(per_image)
    weights = np.ones(per_image.size) if weight is None else np.asarray(weight, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray((weights @ np.where(counts, per_image, 0.0)) / (weights @ counts.astype(np.float64)))


def mean_average_precisions(matched: MatchedPredictions, thresholds: ArrayLike) -> Floats:
    """Compute the mean average precision at many thresholds of the score, in one pass over the predictions.

    Args:
        matched: the predictions, matched at :data:`IOU_THRESHOLDS`.
        thresholds: (n,) thresholds of the score.

    Returns:
        (n,), as :func:`mean_average_precision` of :func:`image_average_precisions`; NaN if every image is left out.
    """
    by_image = np.argsort(matched.image, kind="stable")
    image = matched.image[by_image]
    is_first = np.r_[True, image[1:] != image[:-1]][: image.size]
    start = np.maximum.accumulate(np.where(is_first, np.arange(image.size), 0))
    hits = matched.hits[by_image].astype(np.float64)
    earlier = np.cumsum(hits, axis=0) - hits
    hits += earlier - earlier[start]  # hits of this prediction and of those with higher scores in the same image
    after = _mean_over_thresholds(hits, np.arange(image.size) - start + 1, matched.opacities[image])
    before = np.where(is_first, 0.0, np.r_[0.0, after[:-1]][: image.size])
    # What each prediction adds to the sum of the images' precisions, and to the number of images that count.
    gain, joins = np.empty(image.size), np.empty(image.size)
    gain[by_image] = after - before
    joins[by_image] = is_first & (matched.opacities[image] == 0)
    total = np.r_[0.0, np.cumsum(gain)]
    counted = np.count_nonzero(matched.opacities) + np.r_[0.0, np.cumsum(joins)]
    used = image.size - np.searchsorted(matched.score[::-1], np.asarray(thresholds, dtype=np.float64), side="left")
    with np.errstate(invalid="ignore"):
        return np.asarray(total[used] / counted[used])


def _mean_over_thresholds(hits: ArrayLike, predicted: ArrayLike, opacities: ArrayLike) -> Floats:
    """TP / (TP + FP + FN), from hits (n, thresholds) and counts (n,), to (n,); NaN without opacity and prediction."""
    true_positives = np.asarray(hits, dtype=np.float64)
    either = (np.asarray(predicted) + np.asarray(opacities))[:, np.newaxis] - true_positives
    with np.errstate(invalid="ignore"):
        return np.asarray((true_positives / either).mean(axis=1))

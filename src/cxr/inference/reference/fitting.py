"""Fits a reference on training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cxr.errors import DataError
from cxr.inference.reference.features import FloatArray
from cxr.inference.reference.poses import POSES, PosedFeatures
from cxr.inference.reference.reference import Reference

FOLDS = 5
MIN_NOISE = 1e-6
"""Variance that is assumed along directions in which no two images differ."""
MIN_IMAGES = 20
"""Fewest training images that allow an estimate of the limits."""


def fit_reference(
    images: Sequence[PosedFeatures],
    groups: Sequence[str],
    *,
    dataset_kind: str,
    components: int,
    false_alarms: float,
    max_coloured: float,
) -> Reference:
    """Fit the cloud of training images and its limits.

    A share of ``false_alarms`` of the images is beyond the limits when the cloud is fitted without these images and
    without other images of their patients (five folds). A cloud fitted with them would be too close to them.

    Args:
        images: features of the training images.
        groups: patient group of each image.
        dataset_kind: ``"phantom"`` or ``"patients"``.
        components: largest number of main directions; never more than a quarter of the images.
        false_alarms: share of images of the same kind that may be refused, above 0.
        max_coloured: largest share of coloured pixels of a radiograph, 0 to 1.

    Returns:
        The reference, without facts.

    Raises:
        DataError: if there are too few images.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    if len(images) < MIN_IMAGES or len(set(groups)) < FOLDS:
        raise DataError(
            f"expected at least {MIN_IMAGES} training images of {FOLDS} patients, received images={len(images)}, "
            f"patients={len(set(groups))}; take more images, or leave the reference out"
        )
    descriptors = np.stack([image.descriptors for image in images])
    upright = descriptors[:, 0]
    count = min(components, len(images) // 4)
    distances = np.empty((len(images), 2))
    for fitted_rows, held_out_rows in GroupKFold(FOLDS).split(upright, groups=list(groups)):
        fold = _fit_cloud(upright[fitted_rows], count, dataset_kind, max_coloured)
        distances[held_out_rows] = fold.unscaled_distances(upright[held_out_rows])
    quantiles = np.quantile(distances, 1 - false_alarms, axis=0)
    joint_limit = _upper_limit((distances / quantiles).max(axis=1), false_alarms)
    cloud = replace(
        _fit_cloud(upright, count, dataset_kind, max_coloured), scales=(quantiles * joint_limit).astype(np.float32)
    )
    inputs = np.concatenate([cloud.components(descriptors[:, pose]) for pose in range(len(POSES))])
    targets = np.repeat(np.arange(len(POSES)), len(images))
    pose_model = LogisticRegression(max_iter=2000).fit(inputs, targets)
    return replace(
        cloud,
        pose_weights=pose_model.coef_.astype(np.float32),
        pose_biases=pose_model.intercept_.astype(np.float32),
        statistics=np.stack([image.statistics for image in images]),
        embeddings=cloud.embed(upright),
    )


def _upper_limit(distances: NDArray[np.float64], false_alarms: float) -> float:
    """Estimate the distance that few new images will exceed.

    The quantile of a hundred images is the distance of the farthest one. So the upper end of the prediction interval
    of a log-normal distribution is used where it is larger, as it is for few images.
    """
    from scipy.stats import t

    count, logs = len(distances), np.log(distances)
    t_quantile = float(t.ppf(1 - false_alarms, count - 1))
    predicted = float(np.exp(logs.mean() + t_quantile * logs.std(ddof=1) * np.sqrt(1 + 1 / count)))
    return max(predicted, float(np.quantile(distances, 1 - false_alarms)))


def _fit_cloud(descriptors: FloatArray, count: int, dataset_kind: str, max_coloured: float) -> Reference:
    """Compute mean, main directions and variances of descriptors; limits and poses are fitted later."""
    from sklearn.utils.extmath import randomized_svd

    mean = descriptors.mean(axis=0)
    centred = descriptors - mean
    _, singular_values, directions = randomized_svd(centred, count, n_iter=4, random_state=0)
    degrees_of_freedom = len(descriptors) - 1
    variances = singular_values.astype(np.float64) ** 2 / degrees_of_freedom
    total = float((centred.astype(np.float64) ** 2).sum()) / degrees_of_freedom
    empty = np.zeros((0, 0), dtype=np.float32)
    return Reference(
        dataset_kind=dataset_kind,
        mean=mean,
        directions=directions.astype(np.float32),
        variances=variances.astype(np.float32),
        noise=max(MIN_NOISE, float((total - variances.sum()) / (descriptors.shape[1] - count))),
        scales=np.ones(2, dtype=np.float32),
        pose_weights=empty,
        pose_biases=empty,
        max_coloured=max_coloured,
        statistics=empty,
        embeddings=empty,
    )

"""Temperature scaling (Guo et al. 2017): one number, fitted on validation, calibrates the probabilities.

Temperatures and the weights of an ensemble both act on log odds.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from cxr.errors import DataError
from cxr.evaluation.metrics import EPSILON, Floats, bin_index, log_loss

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Bounds of the temperature search."""

logger = logging.getLogger(__name__)


def log_odds(probability: ArrayLike) -> Floats:
    """Compute the logit, finite for every probability.

    Args:
        probability: any shape, in [0, 1]; kept 1e-7 away from 0 and 1.

    Returns:
        Same shape, float64, in -16.12 .. 16.12.
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), EPSILON, 1 - EPSILON)
    return np.asarray(logit(p), dtype=np.float64)


def pool_probabilities(probabilities: ArrayLike, weights: ArrayLike) -> Floats:
    """Pool the probabilities of several models: sigmoid(sum of weight * logit(p)), a logarithmic opinion pool.

    Args:
        probabilities: (members, images), calibrated, in [0, 1]; kept 1e-7 away from 0 and 1.
        weights: (members,), at least 0; they need not sum to 1.

    Returns:
        (images,), float64, in [0, 1].
    """
    return np.asarray(expit(np.asarray(weights, dtype=np.float64) @ log_odds(probabilities)), dtype=np.float64)


def apply_temperature(probability: ArrayLike, temperature: float) -> Floats:
    """Soften (above 1) or sharpen (below 1) probabilities: sigmoid(logit(p) / T).

    The order of the images and the decision at 0.5 do not change.

    Args:
        probability: any shape, in [0, 1]; kept 1e-7 away from 0 and 1.
        temperature: T, above 0.

    Returns:
        Same shape, float64, inside (0, 1).
    """
    return np.asarray(expit(log_odds(probability) / temperature), dtype=np.float64)


def check_both_classes(labels: ArrayLike) -> NDArray[np.int64]:
    """Refuse validation images that nothing can be fitted to or chosen on.

    Args:
        labels: (images,), 0 or 1.

    Returns:
        The labels as int64.

    Raises:
        DataError: if one of the classes is missing.
    """
    target = np.asarray(labels, dtype=np.int64)
    if target.size == 0 or target.min() == target.max():
        raise DataError(
            "expected validation images of both classes, "
            f"received images={target.size}, pneumonia={int(target.sum())}; "
            "choose a split with a larger validation share"
        )
    return target


def fit_temperature(labels: ArrayLike, probability: ArrayLike) -> float:
    """Find the temperature with the smallest log loss. Pass validation images only, never test images.

    Args:
        labels: (images,), 0 or 1, both present.
        probability: (images,), in [0, 1], raw outputs of the network.

    Returns:
        Temperature in 0.05 .. 20. It is 1 where every image is on the correct side of 0.5: the loss then falls down to
        the lower bound, and validation cannot show how confident the network may be.

    Raises:
        DataError: if one of the classes is missing.
    """
    from scipy.optimize import minimize_scalar

    target = check_both_classes(labels)
    minimum = minimize_scalar(
        lambda log_temperature: float(log_loss(target, apply_temperature(probability, float(np.exp(log_temperature))))),
        bounds=(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(minimum.x))
    is_correct = (np.asarray(probability, dtype=np.float64) > 0.5) == target.astype(bool)
    if temperature < MIN_TEMPERATURE * 1.01 and bool(is_correct.all()):
        logger.warning("validation is separated perfectly: probabilities are left uncalibrated (temperature 1)")
        return 1.0
    return temperature


def reliability_table(labels: ArrayLike, probability: ArrayLike, *, bins: int) -> pd.DataFrame:
    """Compute the points of a reliability diagram.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        bins: number of bins of equal width.

    Returns:
        One row per bin that holds an image: lower, upper (edges), images, probability (mean predicted),
        observed (share with pneumonia).
    """
    frame = pd.DataFrame(
        {
            "bin": bin_index(probability, bins),
            "probability": np.asarray(probability, dtype=np.float64),
            "observed": np.asarray(labels, dtype=np.float64),
        }
    )
    table = frame.groupby("bin").agg(
        images=("observed", "size"), probability=("probability", "mean"), observed=("observed", "mean")
    )
    table.insert(0, "lower", table.index.to_numpy() / bins)
    table.insert(1, "upper", (table.index.to_numpy() + 1) / bins)
    return table.reset_index(drop=True)

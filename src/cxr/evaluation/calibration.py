"""Temperature scaling (Guo et al. 2017): one number, fitted on validation, makes probabilities honest.

Temperatures and the weights of an ensemble both act on log odds.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from cxr.errors import DataError
from cxr.evaluation.metrics import BINS, EPSILON, Floats, bin_of, log_loss

COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the search."""

logger = logging.getLogger(__name__)


def log_odds(probability: ArrayLike) -> Floats:
    """Logit, finite for every probability.

    Args:
        probability: any shape, in [0, 1]; kept 1e-7 away from 0 and 1.

    Returns:
        Same shape, float64, in -16.12 .. 16.12.
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), EPSILON, 1 - EPSILON)
    return np.asarray(logit(p), dtype=np.float64)


def pool(probabilities: ArrayLike, weights: ArrayLike) -> Floats:
    """Join the probabilities of several models: sigmoid(sum of weight * logit(p)), a logarithmic opinion pool.

    Args:
        probabilities: (members, images), calibrated, in [0, 1]; kept 1e-7 away from 0 and 1.
        weights: (members,), at least 0; they need not sum to 1.

    Returns:
        (images,), float64, in [0, 1].
    """
    return np.asarray(expit(np.asarray(weights, dtype=np.float64) @ log_odds(probabilities)), dtype=np.float64)


def apply_temperature(probability: ArrayLike, temperature: float) -> Floats:
    """Soften (above 1) or sharpen (below 1) probabilities: sigmoid(logit(p) / T).

    The order of the images and the decision at 0.5 stay as they are.

    Args:
        probability: any shape, in [0, 1]; kept 1e-7 away from 0 and 1.
        temperature: T, above 0.

    Returns:
        Same shape, float64, inside (0, 1).
    """
    return np.asarray(expit(log_odds(probability) / temperature), dtype=np.float64)


def fit_temperature(target: ArrayLike, probability: ArrayLike) -> float:
    """Find the temperature with the smallest log loss. Give it validation images only, never test images.

    Args:
        target: (images,), 0 or 1, both present.
        probability: (images,), in [0, 1], as the network gives them.

    Returns:
        Temperature in 0.05 .. 20. It stays 1 where every image is on its own side of 0.5: the loss then falls all
        the way to the coldest bound, and validation holds no evidence of how sure the network may be.

    Raises:
        DataError: if one of the classes is missing.
    """
    sick = np.asarray(target, dtype=np.int64)
    if sick.size == 0 or sick.min() == sick.max():
        raise DataError(
            "expected validation images of both classes, "
            f"received images={sick.size}, pneumonia={int(sick.sum())}; "
            "choose a split with a larger validation share"
        )
    found = minimize_scalar(
        lambda heat: float(log_loss(sick, apply_temperature(probability, float(np.exp(heat))))),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(found.x))
    right = (np.asarray(probability, dtype=np.float64) > 0.5) == sick.astype(bool)
    if temperature < COLDEST * 1.01 and bool(right.all()):
        logger.warning("validation is separated perfectly: probabilities are left uncalibrated (temperature 1)")
        return 1.0
    return temperature


def reliability(target: ArrayLike, probability: ArrayLike, *, bins: int = BINS) -> pd.DataFrame:
    """Points of a reliability diagram.

    Args:
        target: (images,), 0 or 1.
        probability: (images,), in [0, 1].
        bins: bins of equal width.

    Returns:
        One row per bin that holds an image: lower, upper (edges), images, probability (mean stated), observed
        (share with pneumonia).
    """
    frame = pd.DataFrame(
        {
            "bin": bin_of(probability, bins),
            "probability": np.asarray(probability, dtype=np.float64),
            "observed": np.asarray(target, dtype=np.float64),
        }
    )
    table = frame.groupby("bin").agg(
        images=("observed", "size"), probability=("probability", "mean"), observed=("observed", "mean")
    )
    table.insert(0, "lower", table.index.to_numpy() / bins)
    table.insert(1, "upper", (table.index.to_numpy() + 1) / bins)
    return table.reset_index(drop=True)

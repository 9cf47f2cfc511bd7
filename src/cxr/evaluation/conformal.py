"""Class-conditional (Mondrian) split conformal prediction: which classes fit an image at a stated coverage.

The score of an image is 1 - calibrated probability of its true class. Each class has its own limit of the score, the
``ceil((n + 1) * coverage)``-th smallest score of its n validation images. A new image whose score for a class is at
most the limit of that class fits the class. If the new images of a class are exchangeable with its validation images,
at least the share ``coverage`` of them fits their class, however rare the class is and whatever the network is.

The promise is about patients like those of validation. Several images of one patient are not exchangeable with those
of others, and validation has also chosen the epoch and the weights of an ensemble, so that the coverage on test is
measured, with intervals over patients. The temperature has no influence: it does not change the order of the images.

Sources: V. Vovk, A. Gammerman and G. Shafer, "Algorithmic Learning in a Random World" (2005; second edition 2022),
on conformal predictors and on Mondrian ones, whose coverage holds in each class. A. N. Angelopoulos and S. Bates, "A
gentle introduction to conformal prediction and distribution-free uncertainty quantification" (2021, arXiv:2107.07511),
on the split form, its correction for finite samples, and class-conditional coverage.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.errors import ParameterError
from cxr.evaluation.metrics import Floats
from cxr.models.prediction_sets import PredictionSets


def needed_images(coverage: float) -> int:
    """Compute how many validation images of each class a coverage needs.

    Args:
        coverage: above 0 and below 1.

    Returns:
        The smallest n with ``ceil((n + 1) * coverage) <= n``, for example 19 for 0.95.
    """
    share = _exact(coverage)
    return math.ceil(share / (1 - share))


def check_enough_images(labels: ArrayLike, coverage: float) -> None:
    """Refuse a coverage that the validation images are too few for: every class would fit every image.

    Args:
        labels: (images,), 0 or 1, of the validation images.
        coverage: above 0 and below 1.

    Raises:
        ParameterError: if a class has too few images; the text says how many are needed.
    """
    is_pneumonia = np.asarray(labels, dtype=bool)
    pneumonia, needed = int(is_pneumonia.sum()), needed_images(coverage)
    normal = is_pneumonia.size - pneumonia
    fewest = min(normal, pneumonia)
    if fewest >= needed:
        return
    # Rounded down, so that the advice is possible.
    lower = f"a coverage of at most {math.floor(1000 * fewest / (fewest + 1)) / 1000:g}, " if fewest else ""
    raise ParameterError(
        [
            f"expected at least {needed} validation images of each class for {coverage=:g}, "
            f"received normal={normal}, pneumonia={pneumonia}; "
            f"choose {lower}a split with a larger validation share, or null for labels without UNCERTAIN"
        ]
    )


def fit_prediction_sets(labels: ArrayLike, probability: ArrayLike, *, coverage: float) -> PredictionSets:
    """Fit the threshold of each class. Pass validation images only, never test images.

    Each threshold is the probability of a validation image, which itself still fits its class.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), calibrated, of pneumonia, in [0, 1].
        coverage: wanted share of the images of each class whose set holds their class, above 0 and below 1.

    Returns:
        The thresholds.

    Raises:
        ParameterError: if a class has too few images for this coverage.
    """
    check_enough_images(labels, coverage)
    is_pneumonia, scores = np.asarray(labels, dtype=bool), np.asarray(probability, dtype=np.float64)
    normal, pneumonia = np.sort(scores[~is_pneumonia]), np.sort(scores[is_pneumonia])[::-1]
    return PredictionSets(
        coverage=coverage,
        normal_at_most=float(normal[_rank(normal.size, coverage) - 1]),
        pneumonia_at_least=float(pneumonia[_rank(pneumonia.size, coverage) - 1]),
        normal_images=normal.size,
        pneumonia_images=pneumonia.size,
    )


def prediction_set_metrics(
    labels: ArrayLike, probability: ArrayLike, sets: PredictionSets, weight: ArrayLike
) -> dict[str, Floats]:
    """Measure coverage and uncertain answers.

    Args:
        labels: (images,), 0 or 1.
        probability: (images,), calibrated, of pneumonia, in [0, 1].
        sets: the fitted thresholds.
        weight: (..., images), at least 0, the number of times that each image is counted.

    Returns:
        Name to (...) shares in [0, 1], NaN where undefined. ``normal_coverage`` and ``pneumonia_coverage``: images of
        the class whose set holds it. ``uncertain``, ``normal_uncertain`` and ``pneumonia_uncertain``: images of both
        classes, or of one, whose answer is UNCERTAIN. ``sensitivity`` and ``specificity``: of the answers that are
        certain.
    """
    is_pneumonia, weights = np.asarray(labels, dtype=bool), np.asarray(weight, dtype=np.float64)
    fits_normal, fits_pneumonia = _membership(probability, sets)
    uncertain = fits_normal == fits_pneumonia
    normal, pneumonia = weights * ~is_pneumonia, weights * is_pneumonia
    return {
        "normal_coverage": _share(fits_normal, normal),
        "pneumonia_coverage": _share(fits_pneumonia, pneumonia),
        "uncertain": _share(uncertain, weights),
        "normal_uncertain": _share(uncertain, normal),
        "pneumonia_uncertain": _share(uncertain, pneumonia),
        "sensitivity": _share(fits_pneumonia, pneumonia * ~uncertain),
        "specificity": _share(fits_normal, normal * ~uncertain),
    }


def count_prediction_sets(probability: ArrayLike, sets: PredictionSets) -> dict[str, int]:
    """Count the images of each kind of set.

    Args:
        probability: (images,), calibrated, of pneumonia, in [0, 1].
        sets: the fitted thresholds.

    Returns:
        ``normal`` and ``pneumonia`` (the set holds that class alone), ``both`` and ``none``.
    """
    fits_normal, fits_pneumonia = _membership(probability, sets)
    members = {
        "normal": fits_normal & ~fits_pneumonia,
        "pneumonia": fits_pneumonia & ~fits_normal,
        "both": fits_normal & fits_pneumonia,
        "none": ~fits_normal & ~fits_pneumonia,
    }
    return {name: int(is_member.sum()) for name, is_member in members.items()}


def _membership(probability: ArrayLike, sets: PredictionSets) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether NORMAL and whether PNEUMONIA fits, each (images,)."""
    scores = np.asarray(probability, dtype=np.float64)
    return scores <= sets.normal_at_most, scores >= sets.pneumonia_at_least


def _rank(images: int, coverage: float) -> int:
    """Which of the sorted scores of a class is its limit, from 1."""
    return math.ceil((images + 1) * _exact(coverage))


def _exact(coverage: float) -> Fraction:
    """The decimal number that a person wrote: (19 + 1) * 0.95 must be 19, whatever the last bit of a float is."""
    return Fraction(str(coverage))


def _share(is_hit: NDArray[np.bool_], weight: Floats) -> Floats:
    total = np.asarray(weight.sum(axis=-1))
    return np.asarray(np.divide(weight @ is_hit, total, out=np.full(total.shape, np.nan), where=total > 0))

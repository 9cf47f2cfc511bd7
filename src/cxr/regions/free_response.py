"""Free-response ROC: the share of opacities that are hit, over the false positives per image that this costs.

An opacity is hit if a predicted box has an intersection over union above one stated threshold with it; see
:mod:`cxr.regions.matching`. A further box on an opacity that is hit already is a false positive. False positives are
counted per image of all images, with and without opacities. Predictions with equal scores come together, and nothing is
interpolated: a method that gives all its boxes one score has either all of them or none.
(Bunch, Hamilton, Sanderson and Simmons 1978; the number of false positives per image takes the place of the false
positive rate, because the number of places without an opacity is unknown.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.evaluation.metrics import ROUNDING, Floats
from cxr.regions.matching import MatchedPredictions


def free_response_curve(matched: MatchedPredictions) -> pd.DataFrame:
    """Compute the free-response ROC.

    Args:
        matched: the predictions, matched at one threshold of the intersection over union.

    Returns:
        Columns false_positives_per_image, sensitivity and threshold (the lowest score that counts; NaN at the origin),
        from no prediction to all of them. Sensitivity is NaN without opacities.
    """
    hits = matched.hits[:, 0]
    ends = _last_of_equal_scores(matched.score)
    opacities, images = int(matched.opacities.sum()), matched.opacities.size
    sensitivity = np.r_[0, np.cumsum(hits)[ends]] / opacities if opacities else np.full(ends.size + 1, np.nan)
    return pd.DataFrame(
        {
            "false_positives_per_image": np.r_[0, np.cumsum(~hits)[ends]] / images,
            "sensitivity": sensitivity,
            "threshold": np.r_[np.nan, matched.score[ends]],
        }
    )


def sensitivity_at_false_positives(
    matched: MatchedPredictions,
    rates: Sequence[float],
    weight: Floats,
    strata: Mapping[str, NDArray[np.bool_]],
) -> dict[str, Floats]:
    """Compute the highest sensitivity of the thresholds that cost at most so many false positives per image.

    Args:
        matched: the predictions, matched at one threshold of the intersection over union.
        rates: allowed false positives per image.
        weight: (replicates, images), number of times that each image is counted.
        strata: name to (images,), whether the image belongs to the stratum. Its sensitivity counts its opacities; the
            threshold is that of all images, because a normal image belongs to no stratum of opacities.

    Returns:
        Name of the stratum to (replicates, rates), in [0, 1]; NaN without opacities.
    """
    hits, image = matched.hits[:, 0].astype(np.float64), matched.image
    ends = np.r_[0, 1 + _last_of_equal_scores(matched.score)]
    sensitivity = {name: np.full((len(weight), len(rates)), np.nan) for name in strata}
    # One replicate at a time: an array of replicates and predictions would not fit in memory for a large test set.
    for number, row in enumerate(weight):
        counted = row[image]
        false_positives = np.r_[0.0, np.cumsum(counted * (1 - hits))][ends] / max(row.sum(), 1.0)
        last = np.searchsorted(false_positives, np.asarray(rates) + ROUNDING, side="right") - 1
        for name, is_member in strata.items():
            opacities = row @ (matched.opacities * is_member)
            if opacities:
                hit = np.r_[0.0, np.cumsum(counted * hits * is_member[image])][ends]
                sensitivity[name][number] = hit[last] / opacities
    return sensitivity


def _last_of_equal_scores(score: Floats) -> NDArray[np.intp]:
    """Positions of falling scores at which a lower score follows, or nothing."""
    return np.flatnonzero(np.r_[score[1:] != score[:-1], True][: score.size])

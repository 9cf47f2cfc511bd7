"""Which test images to show, with their boxes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr.data.split_table import TEST
from cxr.regions.evaluation import RegionEvaluation


def choose_examples(evaluation: RegionEvaluation, count: int) -> pd.DataFrame:
    """Choose test images to show, by a rule that does not favour the detector.

    Args:
        evaluation: the evaluation.
        count: most images; a quarter of them are normal images with boxes that count, where there are enough.

    Returns:
        Rows of :attr:`RegionEvaluation.images`: images with opacities at even distances from the lowest to the highest
        average precision, then normal images, the highest score first. Equals are ordered by path.
    """
    test = evaluation.images[evaluation.images["split"] == TEST]
    has_opacity = test["path"].isin(evaluation.boxes["path"])
    alarms = test[~has_opacity & test["average_precision"].notna()]
    alarms = alarms.sort_values(["highest_score", "path"], ascending=[False, True]).head(count // 4)
    ordered = test[has_opacity].sort_values(["average_precision", "path"])
    positions = np.unique(np.linspace(0, len(ordered) - 1, min(count - len(alarms), len(ordered))).round().astype(int))
    return pd.concat([ordered.iloc[positions], alarms], ignore_index=True)

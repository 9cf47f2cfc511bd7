"""How well facts about a file alone tell the classes apart, without a look at the lungs.

On the published radiographs NORMAL images are larger and brighter files: a network can score well by such
shortcuts. Each fact is judged by a small classifier, cross-validated so that no patient is on both sides.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from cxr.data.dataset import PNEUMONIA

FACTS: dict[str, str] = {
    "bytes": "file size",
    "width": "width",
    "height": "height",
    "mean": "mean grey level",
    "std": "contrast",
    "colour_mode": "stored in colour",
}
"""Column to its name in reports."""

CAUTION = 0.6
"""AUROC from which a fact is called a shortcut."""

_FOLDS = 5


def shortcut_aurocs(images: pd.DataFrame, *, seed: int = 0) -> pd.Series[float]:
    """Measure how well each fact, and all together, predict the label.

    Args:
        images: accepted images, with ``label``, ``patient``, ``bytes``, ``width``, ``height``, ``mean``,
            ``std`` and ``mode``.
        seed: seed of folds and classifier.

    Returns:
        AUROC (0..1; 0.5 is chance) by name of the fact, ``"all together"`` last; NaN where a class has
        too few patients to be cross-validated.
    """
    facts = images.assign(colour_mode=~images["mode"].isin(["L", "1", "I", "I;16"]))[list(FACTS)]
    target: NDArray[np.int64] = (images["label"] == PNEUMONIA).to_numpy().astype(np.int64)
    groups = pd.factorize(images["patient"])[0]
    found = {
        title: _auroc(facts[[column]].to_numpy(np.float64), target, groups, seed) for column, title in FACTS.items()
    }
    found["all together"] = _auroc(facts.to_numpy(np.float64), target, groups, seed)
    return pd.Series(found, dtype=float)


def _auroc(facts: NDArray[np.float64], target: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> float:
    """Cross-validated AUROC; folds keep patients together."""
    per_class = [len(np.unique(groups[target == label])) for label in (0, 1)]
    if min(per_class) < _FOLDS:
        return float("nan")
    if not (np.ptp(facts, axis=0) > 0).any():
        return 0.5
    scores = np.empty(len(target))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    leaf = int(np.clip(len(target) / 40, 2, 20))
    model = RandomForestClassifier(12, min_samples_leaf=leaf, max_features=None, random_state=seed)
    for train, test in folds.split(facts, target, groups):
        scores[test] = model.fit(facts[train], target[train]).predict_proba(facts[test])[:, 1]
    return float(roc_auc_score(target, scores))

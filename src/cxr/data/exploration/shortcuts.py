"""Measures how well facts about a file alone predict the class, without a look at the lungs.

In the published set NORMAL images are larger and brighter files, so that a network can score well by such
shortcuts. A small classifier is trained on each fact; in its cross-validation no patient is in two folds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from cxr.data.dataset import PNEUMONIA

FILE_FACTS: dict[str, str] = {
    "bytes": "file size",
    "width": "width",
    "height": "height",
    "mean": "mean grey level",
    "std": "contrast",
    "colour_mode": "stored in colour",
}
"""Column to its name in reports."""

SHORTCUT_COLUMNS = ("label", "patient", "mode", *(name for name in FILE_FACTS if name != "colour_mode"))
"""Columns of a manifest that the facts are taken from."""

CAUTION_AUROC = 0.6
"""AUROC from which a fact is called a shortcut."""

ALL_FACTS = "all together"
"""Name of the classifier that uses all facts."""

MAX_IMAGES = 10_000
"""Images that the classifiers are trained and judged on, at most, so that their time has a limit."""

_FOLDS = 5


def shortcut_aurocs(images: pd.DataFrame, *, seed: int) -> pd.Series[float]:
    """Measure how well each fact, and all together, predict the label.

    Args:
        images: accepted images, with :data:`SHORTCUT_COLUMNS`.
        seed: seed of the draw of :data:`MAX_IMAGES` images, of the folds and of the classifiers.

    Returns:
        AUROC (0..1; 0.5 is chance) by name of the fact, that of :data:`ALL_FACTS` last; NaN where a class has
        too few patients to be cross-validated.
    """
    if len(images) > MAX_IMAGES:
        images = images.sample(MAX_IMAGES, random_state=seed)
    facts = images.assign(colour_mode=~images["mode"].isin(["L", "1", "I", "I;16"]))[list(FILE_FACTS)]
    target: NDArray[np.int64] = (images["label"] == PNEUMONIA).to_numpy().astype(np.int64)
    groups = pd.factorize(images["patient"])[0]
    columns = {name: [column] for column, name in FILE_FACTS.items()} | {ALL_FACTS: list(FILE_FACTS)}
    aurocs = {
        name: _cross_validated_auroc(facts[names].to_numpy(np.float64), target, groups, seed)
        for name, names in columns.items()
    }
    return pd.Series(aurocs, dtype=float)


def _cross_validated_auroc(
    facts: NDArray[np.float64], target: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> float:
    """Compute the cross-validated AUROC; the images of a patient are in one fold."""
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

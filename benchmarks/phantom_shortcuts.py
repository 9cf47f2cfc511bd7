"""How well metadata alone predict the label of a phantom: AUROC of classifiers that never see the image.

    python benchmarks/phantom_shortcuts.py [--data FOLDER | --images 600 --seed 0] [--limit 0.6]

Draws a set of phantoms (or takes a data folder with the same layout) and prints, for logistic regression
and gradient boosting under patient-grouped cross-validation, the AUROC from file size, width, height, aspect,
mean and standard deviation of the grey levels, and the AUROC of each of these alone. Ends with status 1 if a
classifier or its inverse reaches the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr.data.dataset import PNEUMONIA
from cxr.data.phantom.dataset import draw_dataset

FEATURES = ["bytes", "width", "height", "aspect", "mean", "std"]
FOLDS, REPEATS = 5, 3


def describe(data: Path) -> pd.DataFrame:
    """Read the metadata of every image.

    Args:
        data: data folder of phantoms.

    Returns:
        One row per image: the features, the label (1 for pneumonia) and the patient.
    """
    rows = []
    for path in sorted(data.glob("*/*/*.jpeg")):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        height, width = grey.shape
        parts = path.stem.split("_")
        patient = "-".join(parts[:2]) if parts[0].startswith("person") else path.stem.split("-0001")[0]
        facts = (path.stat().st_size, width, height, width / height, grey.mean(), grey.std())
        rows.append((*facts, int(path.parent.name == PNEUMONIA), patient))
    return pd.DataFrame(rows, columns=[*FEATURES, "label", "patient"])


def grouped_auroc(frame: pd.DataFrame) -> dict[str, float]:
    """Compute the AUROC of each classifier, averaged over repeated patient-grouped cross-validation.

    Args:
        frame: the return value of :func:`describe`.

    Returns:
        Classifier to AUROC.
    """
    classifiers = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "gradient boosting": HistGradientBoostingClassifier(
            max_iter=80, learning_rate=0.06, min_samples_leaf=15, random_state=0
        ),
    }
    scores: dict[str, float] = {}
    for name, classifier in classifiers.items():
        aurocs = []
        for repeat in range(REPEATS):
            folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=repeat)
            probabilities = cross_val_predict(
                classifier,
                frame[FEATURES],
                frame["label"],
                groups=frame["patient"],
                cv=folds,
                method="predict_proba",
            )
            aurocs.append(roc_auc_score(frame["label"], probabilities[:, 1]))
        scores[name] = float(np.mean(aurocs))
    return scores


def main() -> int:
    """Print the table.

    Returns:
        0 if every classifier and its inverse stay under the limit, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of phantoms that are already drawn")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=0.6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data
        if data is None:
            data = Path(folder)
            draw_dataset(data, images=arguments.images, seed=arguments.seed)
        frame = describe(data)
    print(f"{len(frame)} images, {frame['patient'].nunique()} patients, {frame['label'].mean():.1%} pneumonia\n")
    print(
        frame.groupby("label")[FEATURES].mean().rename({0: "normal", 1: "pneumonia"}).round(2).to_string(),
        "\n",
    )
    for feature in FEATURES:
        print(f"{feature:>20}  AUROC {roc_auc_score(frame['label'], frame[feature]):.3f}")
    scores = grouped_auroc(frame)
    for name, score in scores.items():
        print(f"{name:>20}  AUROC {score:.3f}")
    worst = max(max(score, 1 - score) for score in scores.values())
    print(f"\nworst of the classifiers and their inverses: {worst:.3f} (limit {arguments.limit})")
    return int(worst >= arguments.limit)


if __name__ == "__main__":
    sys.exit(main())

"""How much of an AUROC could come from something other than the lungs: two checks beside each model's figure.

**Metadata alone.** A small classifier that sees the file and no finding: its size in bytes, width, height, aspect
ratio and mean grey. **Lungs hidden.** The model itself, on test images whose lungs are blacked out.

A high AUROC of either means that the data set has shortcuts: the classes came from other scanners, exports or ways
of lying on the table, and a network can score well by telling those apart. On the published radiographs file size
alone gives about 0.9, and networks with the lungs blacked out are reported to reach 0.92 to 0.99. A low one does not
prove the reverse: mean grey also follows the disease a little, and a network that never saw a black field may be
thrown off by it. The method of blacking out the centre is that of Maguolo and Nanni 2021, "A critic evaluation of
methods for COVID-19 automatic detection from X-ray images", Information Fusion 76; they also train on such images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import PNEUMONIA
from cxr.data.split_table import TRAIN
from cxr.errors import DataError
from cxr.evaluation.bootstrap import bootstrap
from cxr.evaluation.evaluate import TEST, Predicts, predict
from cxr.evaluation.metrics import Floats, auroc
from cxr.images.prepared import Prepared

FACTS: Mapping[str, str] = {
    "bytes": "file size",
    "width": "width",
    "height": "height",
    "mean": "mean grey",
}
"""Columns of the manifest that the metadata baseline sees, and their names for readers."""

METADATA_COLUMN, HIDDEN_COLUMN = "score_metadata", "probability_raw_lungs_hidden"
"""Columns of the predictions: the metadata baseline's score, and the model's raw probability of the blacked-out image.
Both are NaN on validation."""

TOP, BOTTOM, WIDEST = 0.10, 0.85, 0.60
HALF_WIDTHS = (0.28, 0.42)


def lung_field(height: int, width: int) -> NDArray[np.bool_]:
    """Where the lungs lie in an ordinary frontal film that fills the image.

    One field over both lungs and the heart between them, symmetric about the vertical midline, so that a mirrored
    film is treated alike. In fractions of the side: from 0.10 to 0.85 of the height; at the top it reaches 0.28 to
    either side of the midline and widens in a straight line to 0.42 at 0.60 of the height, from where it goes
    straight down. Left in sight are all borders and corners, the neck, shoulders, armpits and arms, and the abdomen
    below the diaphragm: 44 % of the image. Chosen by eye on prepared radiographs of children, which fill the square.

    Args:
        height: rows of the image.
        width: columns of the image.

    Returns:
        (height, width), True where the lungs are hidden; a pixel belongs to the field if its centre does.
    """
    down, across = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    reach = np.interp(down, (TOP, WIDEST), HALF_WIDTHS)
    inside: NDArray[np.bool_] = np.abs(across - 0.5)[None, :] < reach[:, None]
    return inside & ((down >= TOP) & (down < BOTTOM))[:, None]


def hide_lungs(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Black out the lungs of prepared images, on all planes.

    Args:
        images: (n, height, width, planes), uint8, after their recipe; they stay as they are.

    Returns:
        A copy with 0 inside :func:`lung_field`.
    """
    hidden = np.array(images, dtype=np.uint8)
    hidden[:, lung_field(*hidden.shape[1:3])] = 0
    return hidden


@dataclass(frozen=True)
class LungsHidden:
    """A network behind a screen: it predicts images without their lungs.

    Attributes:
        predictor: the network.
    """

    predictor: Predicts

    def probabilities(self, images: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float64]:
        """Predict images after hiding their lungs.

        Args:
            images: prepared images (n, height, width, planes), uint8.
            batch_size: images per network call.

        Returns:
            Raw probabilities of pneumonia, (n,).
        """
        return self.predictor.probabilities(hide_lungs(images), batch_size=batch_size)


def predict_hidden(
    predictor: Predicts, prepared: Prepared, rows: pd.DataFrame, *, batch_size: int = 64
) -> NDArray[np.float64]:
    """Predict the test images without their lungs.

    Args:
        predictor: the network.
        prepared: prepared images.
        rows: images with the columns path and split.
        batch_size: images per network call.

    Returns:
        (rows,), raw probabilities, for the column :data:`HIDDEN_COLUMN`; NaN for images of other splits than test.
    """
    tested = (rows["split"] == TEST).to_numpy()
    found = np.full(len(rows), np.nan)
    places = prepared.rows(rows.loc[tested, "path"])
    found[tested] = predict(LungsHidden(predictor), prepared.images, places, batch_size=batch_size)
    return found


def metadata_scores(
    splits: pd.DataFrame, manifest: pd.DataFrame, rows: pd.DataFrame, *, seed: int = 0
) -> NDArray[np.float64]:
    """Fit the metadata baseline on the training images and let it judge the test images.

    Boosted trees, because the facts of files come in islands (one per scanner, export and crop) that trees cut out
    and a quadratic logistic regression does not, because they need no scaling and take unknown facts as they are.
    On validation images of the radiographs, re-encoded at one size, both are equal within 0.01 AUROC. The trees are
    small (8 leaves, 100 rounds of rate 0.05) and nothing is tuned or stopped early: no image but the training ones
    is looked at.

    Args:
        splits: assignment with the columns path, label and split; its training images are fitted.
        manifest: one row per file with the columns path and those of :data:`FACTS`; unknown facts are missing.
        rows: images with the columns path and split.
        seed: seed of the classifier.

    Returns:
        (rows,), scores in [0, 1], higher for pneumonia, for the column :data:`METADATA_COLUMN`; NaN for images of
        other splits than test, and for all if the training images do not hold both classes.

    Raises:
        DataError: if an image is not in the manifest.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    train = splits[splits["split"] == TRAIN]
    tested = (rows["split"] == TEST).to_numpy()
    seen, judged = (_facts(manifest, paths.tolist()) for paths in (train["path"], rows.loc[tested, "path"]))
    sick = (train["label"] == PNEUMONIA).to_numpy()
    found = np.full(len(rows), np.nan)
    if sick.all() or not sick.any():
        return found
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=100,
        max_leaf_nodes=8,
        # Twenty images a leaf, as usual; fewer where a trial has only a few dozen images.
        min_samples_leaf=int(np.clip(len(train) / 40, 2, 20)),
        early_stopping=False,
        random_state=seed,
    )
    # So small a fit takes one thread a moment; several wait for each other, for seconds where the processor is busy.
    with threadpool_limits(1, "openmp"):
        found[tested] = model.fit(seen, sick).predict_proba(judged)[:, 1]
    return found


def honesty(predictions: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Measure both checks on the test images, with intervals over patients from the draws of all other figures.

    Args:
        predictions: rows with the columns path, group (patient), label, split, probability_raw,
            :data:`METADATA_COLUMN` and :data:`HIDDEN_COLUMN`; rows of other splits than test are ignored.
        resamples: bootstrap replicates.
        seed: seed of the bootstrap.

    Returns:
        ``metadata``: the ``facts`` seen and their ``auroc``. ``lungs_hidden``: ``auroc``, the ``full_auroc`` of the
        whole images and their difference ``drop`` (full less hidden). AUROCs and drop are value, low and high; NaN
        where undefined.
    """
    test = predictions[predictions["split"] == TEST]
    sick = (test["label"] == PNEUMONIA).to_numpy().astype(np.int64)
    full, metadata, hidden = (
        test[name].to_numpy(dtype=np.float64) for name in ("probability_raw", METADATA_COLUMN, HIDDEN_COLUMN)
    )

    def figures(weight: Floats) -> dict[str, Floats]:
        whole, without = auroc(sick, full, weight), _auroc(sick, hidden, weight)
        return {"metadata": _auroc(sick, metadata, weight), "full": whole, "hidden": without, "drop": whole - without}

    drawn = bootstrap(figures, sick, test["group"], resamples=resamples, seed=seed).intervals
    return {
        "metadata": {"facts": [*FACTS.values(), "aspect ratio"], "auroc": drawn["metadata"].to_dict()},
        "lungs_hidden": {
            "auroc": drawn["hidden"].to_dict(),
            "full_auroc": drawn["full"].to_dict(),
            "drop": drawn["drop"].to_dict(),
        },
    }


def _auroc(sick: NDArray[np.int64], scores: NDArray[np.float64], weight: Floats) -> Floats:
    """AUROC, NaN if a score is unknown: sorting would rank the unknown highest."""
    return np.full(weight.shape[:-1], np.nan) if np.isnan(scores).any() else auroc(sick, scores, weight)


def _facts(manifest: pd.DataFrame, paths: Sequence[str]) -> NDArray[np.float64]:
    """Facts of some files, (paths, facts and aspect ratio); NaN where unknown."""
    rows = manifest.set_index("path")
    absent = [path for path in paths if path not in rows.index]
    if absent:
        raise DataError(
            f"expected every image of the split in the manifest, received {len(absent)} that are not: "
            f"{', '.join(absent[:10])}; give the manifest that the split was made from"
        )
    facts = rows.loc[list(paths), list(FACTS)].astype("Float64")
    return facts.assign(aspect=facts["width"] / facts["height"]).to_numpy(dtype=np.float64, na_value=np.nan)

"""Two checks of how much of an AUROC could come from something other than the lungs.

**Metadata baseline.** A small classifier that sees facts of the file and no content: its size in bytes, width, height,
aspect ratio, mean grey, sharpness, and the ratio of horizontal to vertical gradients. The last two come from the
manifest, too: the step validate decodes every file anyway, once for all models. **Lungs hidden.** The model itself, on
test images whose lungs are blacked out.

A high AUROC of either means that the data set has shortcuts: the classes came from different scanners, exports or
positions of the patient, and a network can score well by recognising those. On the published radiographs file size
alone gives about 0.9, the ratio of gradients alone 0.89 even where all images were squashed to one size (together
with sharpness 0.92), and networks with the lungs blacked out are reported to reach 0.92 to 0.99. A low AUROC does not
prove the opposite: mean grey and sharpness also depend on the disease a little, and a black area may confuse a network
that was never trained with one. The method of blacking out the centre is that of Maguolo and Nanni 2021, "A critic
evaluation of methods for COVID-19 automatic detection from X-ray images", Information Fusion 76; they also train on
such images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import PNEUMONIA
from cxr.data.split_table import TEST, TRAIN
from cxr.errors import DataError
from cxr.evaluation.bootstrap import bootstrap
from cxr.evaluation.evaluate import Evaluation
from cxr.evaluation.metrics import Floats, auroc
from cxr.evaluation.prediction import ImageRows, ProbabilityPredictor, predict_rows
from cxr.images.prepared import PreparedImages
from cxr.images.recipes import Recipe

FILE_FACTS: Mapping[str, str] = {
    "bytes": "file size",
    "width": "width",
    "height": "height",
    "mean": "mean grey",
    "sharpness": "sharpness",
    "gradient_ratio": "ratio of horizontal to vertical gradients",
}
"""Columns of the manifest that the metadata baseline uses, and their names for readers."""

METADATA_COLUMN, HIDDEN_COLUMN = "score_metadata", "probability_raw_lungs_hidden"
"""Columns of the predictions: the metadata baseline's score, and the model's raw probability of the blacked-out image.
Both are NaN on validation."""

TOP, BOTTOM, WIDEST = 0.10, 0.85, 0.60
HALF_WIDTHS = (0.28, 0.42)


def lung_field(height: int, width: int) -> NDArray[np.bool_]:
    """Mark where the lungs lie in an ordinary frontal radiograph that fills the image.

    One area over both lungs and the heart between them, symmetric about the vertical midline, so that a mirrored
    image is treated in the same way. In fractions of the side: from 0.10 to 0.85 of the height; at the top it reaches
    0.28 to either side of the midline and widens in a straight line to 0.42 at 0.60 of the height; below, its width is
    constant. All borders and corners, the neck, shoulders, armpits and arms, and the abdomen below the diaphragm stay
    visible: 44 % of the image. Chosen by eye on prepared radiographs of children, which fill the square.

    Args:
        height: rows of the image.
        width: columns of the image.

    Returns:
        (height, width), True where the lungs are hidden; a pixel belongs to the area if its centre does.
    """
    return _lungs_at((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width)


def prepared_lung_field(recipe: Recipe, height: int, width: int) -> NDArray[np.bool_]:
    """Mark where a prepared image shows the :func:`lung_field` of its radiograph.

    Args:
        recipe: recipe of the image; it may have cut off or added borders.
        height: rows of the radiograph.
        width: columns of the radiograph.

    Returns:
        ``(size, size)``, True where the lungs are hidden.
    """
    placement = recipe.placement(height, width)
    down, across = (
        source.start / side
        + (np.arange(recipe.size) + 0.5 - target.start) / (target.stop - target.start)
        * ((source.stop - source.start) / side)
        for source, target, side in zip(placement.source, placement.target, (height, width), strict=True)
    )  # fmt: skip
    return _lungs_at(down, across)


class LungsHiddenImages:
    """Prepared images whose lungs are blacked out, on all planes, when they are read."""

    def __init__(self, images: ImageRows, recipe: Recipe, sizes: Mapping[int, tuple[int, int]]) -> None:
        """Remember the images; none is read yet.

        Args:
            images: ``(n, size, size, planes)`` uint8, usually memory-mapped; they are not modified.
            recipe: their recipe.
            sizes: row number to height and width of the radiograph.
        """
        self.images = images
        self.recipe = recipe
        self.sizes = sizes

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read images and hide their lungs.

        Args:
            rows: ``(m,)`` row numbers.

        Returns:
            ``(m, size, size, planes)`` uint8.
        """
        hidden = np.array(self.images[rows], dtype=np.uint8)
        for image, row in zip(hidden, rows.tolist(), strict=True):
            image[prepared_lung_field(self.recipe, *self.sizes[row])] = 0
        return hidden


def predict_lungs_hidden(
    predictor: ProbabilityPredictor,
    prepared: PreparedImages,
    manifest: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    batch_size: int,
) -> NDArray[np.float64]:
    """Predict the test images with their lungs hidden.

    Args:
        predictor: the network.
        prepared: prepared images.
        manifest: one row per file with the columns path, height and width.
        rows: images with the columns path and split.
        batch_size: images per network call.

    Returns:
        (rows,), raw probabilities, for the column :data:`HIDDEN_COLUMN`; NaN for images of other splits than test.
    """
    is_test = (rows["split"] == TEST).to_numpy()
    scores = np.full(len(rows), np.nan)
    test_paths = rows.loc[is_test, "path"]
    test_rows = prepared.rows(test_paths)
    sides = manifest.set_index("path").loc[test_paths, ["height", "width"]].to_numpy(dtype=np.int64).tolist()
    hidden = LungsHiddenImages(
        prepared.images, prepared.recipe, dict(zip(test_rows.tolist(), map(tuple, sides), strict=True))
    )
    scores[is_test] = predict_rows(predictor, hidden, test_rows, batch_size=batch_size)
    return scores


def metadata_baseline_scores(
    splits: pd.DataFrame, manifest: pd.DataFrame, rows: pd.DataFrame, *, seed: int
) -> NDArray[np.float64]:
    """Fit the metadata baseline on the training images and score the test images.

    It uses boosted trees. The facts of files form clusters (one per scanner, export and crop) that trees separate and
    a quadratic logistic regression does not; trees also need no scaling and accept unknown facts. On validation images
    of the radiographs, re-encoded at one size, both are equal within 0.01 AUROC. The trees are small (8 leaves, 100
    rounds of rate 0.05) and nothing is tuned or stopped early, so that only training images are used.

    Args:
        splits: assignment with the columns path, label and split; the classifier is fitted to its training images.
        manifest: one row per file with the columns path and those of :data:`FILE_FACTS`; unknown facts are missing.
        rows: images with the columns path and split.
        seed: seed of the classifier.

    Returns:
        (rows,), scores in [0, 1], higher for pneumonia, for the column :data:`METADATA_COLUMN`; NaN for images of
        other splits than test, and for all if the training images do not hold both classes.

    Raises:
        DataError: if an image or a fact is not in the manifest.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    train = splits[splits["split"] == TRAIN]
    is_test = (rows["split"] == TEST).to_numpy()
    train_facts, test_facts = (
        _file_facts(manifest, paths.tolist()) for paths in (train["path"], rows.loc[is_test, "path"])
    )
    labels = (train["label"] == PNEUMONIA).to_numpy()
    scores = np.full(len(rows), np.nan)
    if labels.all() or not labels.any():
        return scores
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=100,
        max_leaf_nodes=8,
        # Twenty images per leaf, as usual; fewer where a trial run has only a few dozen images.
        min_samples_leaf=int(np.clip(len(train) / 40, 2, 20)),
        early_stopping=False,
        random_state=seed,
    )
    # One thread fits this quickly. Several threads wait for each other, for seconds on a busy processor.
    with threadpool_limits(1, "openmp"):
        scores[is_test] = model.fit(train_facts, labels).predict_proba(test_facts)[:, 1]
    return scores


def measure_shortcuts(predictions: pd.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Measure both checks on the test images, with intervals over patients from the same draws as all other metrics.

    Args:
        predictions: rows with the columns path, group (patient), label, split, probability_raw,
            :data:`METADATA_COLUMN` and :data:`HIDDEN_COLUMN`; rows of other splits than test are ignored.
        resamples: number of bootstrap replicates.
        seed: seed of the bootstrap.

    Returns:
        ``metadata``: the ``facts`` used and their ``auroc``. ``lungs_hidden``: ``auroc``, the ``full_auroc`` of the
        whole images and their difference ``drop`` (full less hidden). AUROCs and drop are value, low and high; NaN
        where undefined.
    """
    test = predictions[predictions["split"] == TEST]
    labels = (test["label"] == PNEUMONIA).to_numpy().astype(np.int64)
    full, metadata, hidden = (
        test[name].to_numpy(dtype=np.float64) for name in ("probability_raw", METADATA_COLUMN, HIDDEN_COLUMN)
    )

    def statistic(weight: Floats) -> dict[str, Floats]:
        full_auroc, hidden_auroc = auroc(labels, full, weight), _auroc_if_known(labels, hidden, weight)
        return {
            "metadata": _auroc_if_known(labels, metadata, weight),
            "full": full_auroc,
            "hidden": hidden_auroc,
            "drop": full_auroc - hidden_auroc,
        }

    intervals = bootstrap(statistic, labels, test["group"], resamples=resamples, seed=seed).intervals
    return {
        "metadata": {"facts": [*FILE_FACTS.values(), "aspect ratio"], "auroc": intervals["metadata"].to_dict()},
        "lungs_hidden": {
            "auroc": intervals["hidden"].to_dict(),
            "full_auroc": intervals["full"].to_dict(),
            "drop": intervals["drop"].to_dict(),
        },
    }


def with_shortcut_checks(evaluation: Evaluation, *, resamples: int, seed: int) -> Evaluation:
    """Add both checks to the report of an evaluation, if its predictions have the columns for them.

    Args:
        evaluation: the evaluation.
        resamples: number of bootstrap replicates.
        seed: seed of the bootstrap.

    Returns:
        A new evaluation with the entry ``honesty``; the same one without the columns.
    """
    if HIDDEN_COLUMN not in evaluation.predictions.columns:
        return evaluation
    checks = measure_shortcuts(evaluation.predictions, resamples=resamples, seed=seed)
    return evaluation.with_entries({"honesty": checks})


def _auroc_if_known(labels: NDArray[np.int64], scores: NDArray[np.float64], weight: Floats) -> Floats:
    """AUROC, or NaN if a score is unknown, because sorting would rank it highest."""
    return np.full(weight.shape[:-1], np.nan) if np.isnan(scores).any() else auroc(labels, scores, weight)


def _file_facts(manifest: pd.DataFrame, paths: Sequence[str]) -> NDArray[np.float64]:
    """Facts of files, (paths, facts and aspect ratio); NaN where unknown."""
    unknown = [name for name in FILE_FACTS if name not in manifest]
    if unknown:
        raise DataError(
            f"expected a manifest with the columns {', '.join(FILE_FACTS)}, received one without {', '.join(unknown)}; "
            "run `cxr validate` again"
        )
    rows = manifest.set_index("path")
    absent = [path for path in paths if path not in rows.index]
    if absent:
        raise DataError(
            f"expected every image of the split in the manifest, received {len(absent)} that are not: "
            f"{', '.join(absent[:10])}; give the manifest that the split was made from"
        )
    facts = rows.loc[list(paths), list(FILE_FACTS)].astype("Float64")
    return facts.assign(aspect=facts["width"] / facts["height"]).to_numpy(dtype=np.float64, na_value=np.nan)


def _lungs_at(down: Floats, across: Floats) -> NDArray[np.bool_]:
    """The lung field at positions in fractions of the radiograph's sides; positions outside of it are not in it."""
    reach = np.interp(down, (TOP, WIDEST), HALF_WIDTHS)
    inside: NDArray[np.bool_] = np.abs(across - 0.5)[None, :] < reach[:, None]
    return inside & ((down >= TOP) & (down < BOTTOM))[:, None]

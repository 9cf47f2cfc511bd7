"""The acquisition stress test: how a model answers if its images had been acquired in another way.

Validation images come from the same devices as training images. They cannot show whether a network depends on how
images are acquired, and the images of another hospital, or another export, differ just in that. The test changes
validation and test images in the fixed ways of :data:`cxr.evaluation.acquisition_changes.ACQUISITION_CHANGES` and
measures the model on them, with temperature and threshold as they are. Figures on validation may choose between models.

Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations", measure
networks for photographs in this way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.data.split_table import TEST, VALIDATION
from cxr.errors import DataError
from cxr.evaluation.acquisition_changes import ACQUISITION_CHANGES
from cxr.evaluation.bootstrap import Interval, bootstrap
from cxr.evaluation.calibration import apply_temperature
from cxr.evaluation.evaluate import Evaluation
from cxr.evaluation.metrics import Floats, auroc, confusion, decision_metrics
from cxr.evaluation.prediction import CHUNK, ProbabilityPredictor
from cxr.images.prepared import PreparedImages

STRESS_MEASURES = ("auroc", "sensitivity", "specificity")
"""Measures of the test, keys of :data:`cxr.evaluation.metrics.METRICS`."""

UNCHANGED, MEAN = "unchanged", "mean"


def draw_stress_sample(rows: pd.DataFrame, *, images: int, seed: int) -> pd.DataFrame:
    """Draw the images that are changed: the same ones for all models of a split.

    Args:
        rows: images with the columns label and split, in the order of the split's table.
        images: most images of validation, and most of test; half of them of each class where there are enough.
        seed: seed of the draw.

    Returns:
        The drawn rows of validation and test, in the same order.
    """
    generator = np.random.default_rng(seed)
    drawn: list[int] = []
    for split in (VALIDATION, TEST):
        part = rows[rows["split"] == split]
        normal, pneumonia = (generator.permutation(part.index[part["label"] == label]) for label in (NORMAL, PNEUMONIA))
        normal = normal[: max(images // 2, images - len(pneumonia))]
        drawn += [*normal, *pneumonia[: images - len(normal)]]
    return rows.loc[sorted(drawn)]


def predict_changed_images(
    predictor: ProbabilityPredictor, prepared: PreparedImages, rows: pd.DataFrame, *, batch_size: int
) -> pd.DataFrame:
    """Predict images under every acquisition change.

    Args:
        predictor: the network.
        prepared: prepared images.
        rows: the images, with the column path.
        batch_size: images per network call.

    Returns:
        One row per change and image: ``change`` (its key), ``path`` and ``probability_raw``.
    """
    positions = prepared.rows(rows["path"])
    # Changes and images form one sequence, so that batches are full even if there are few images.
    pairs = [(change, position) for change in ACQUISITION_CHANGES for position in positions]
    probabilities = np.empty(len(pairs), dtype=np.float64)
    with tqdm(total=len(pairs), desc="stress test", unit="image", disable=None) as bar:
        for start in range(0, len(pairs), CHUNK):
            chunk = pairs[start : start + CHUNK]
            changed = np.stack([change.apply(prepared.images[position]) for change, position in chunk])
            probabilities[start : start + CHUNK] = predictor.probabilities(changed, batch_size=batch_size)
            bar.update(len(chunk))
    return pd.DataFrame(
        {
            "change": np.repeat([change.key for change in ACQUISITION_CHANGES], len(rows)),
            "path": np.tile(rows["path"].to_numpy(dtype=object), len(ACQUISITION_CHANGES)),
            "probability_raw": probabilities,
        }
    )


def with_stress_test(
    evaluation: Evaluation, changed_predictions: pd.DataFrame | None, *, resamples: int, seed: int
) -> Evaluation:
    """Add the stress test to an evaluation.

    Args:
        evaluation: the evaluation.
        changed_predictions: the result of :func:`predict_changed_images`; None leaves the evaluation as it is.
        resamples: number of bootstrap replicates over patients.
        seed: seed of the bootstrap.

    Returns:
        A new evaluation with ``stress`` and ``changed_predictions``.
    """
    if changed_predictions is None:
        return evaluation
    stress = measure_stress(evaluation, changed_predictions, resamples=resamples, seed=seed)
    return replace(evaluation, stress=stress, changed_predictions=changed_predictions)


def measure_stress(
    evaluation: Evaluation, changed_predictions: pd.DataFrame, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Measure validation and test under every change, with the model's own temperature and threshold.

    Args:
        evaluation: the evaluation of the images as they are.
        changed_predictions: one row per change and image: change, path and probability_raw.
        resamples: number of bootstrap replicates; all figures of a split come from the same draws.
        seed: seed of the bootstrap.

    Returns:
        ``validation`` and ``test``, each with the counts ``images``, ``patients``, ``normal`` and ``pneumonia``;
        ``unchanged`` (the same images as they are), ``changes`` (a list in the order of the table, with ``key``,
        ``kind``, ``strength`` and ``title``), ``mean`` (over the changes) and ``worst`` (the change with the lowest
        figure, and this figure). Each of them holds :data:`STRESS_MEASURES` as value, low and high; NaN where
        undefined. An interval of ``worst`` is that of the change, which does not cover the choice of the worst.

    Raises:
        DataError: if a prediction is missing for an image and a change.
    """
    raw = changed_predictions.pivot(index="path", columns="change", values="probability_raw")
    missing = [change.key for change in ACQUISITION_CHANGES if change.key not in raw or raw[change.key].isna().any()]
    if missing:
        raise DataError(
            f"expected a prediction of every image under every change, received none or too few of "
            f"{', '.join(missing)}; run `cxr evaluate` again"
        )
    rows = evaluation.predictions[evaluation.predictions["path"].isin(raw.index)]
    report = {}
    for split in (VALIDATION, TEST):
        part = rows[rows["split"] == split]
        probabilities = {UNCHANGED: part["probability"].to_numpy(dtype=np.float64)}
        for change in ACQUISITION_CHANGES:
            probabilities[change.key] = apply_temperature(
                raw.loc[part["path"], change.key].to_numpy(dtype=np.float64), evaluation.temperature
            )
        threshold = evaluation.operating_point.threshold
        report[split] = _measure_split(part, probabilities, threshold, resamples=resamples, seed=seed)
    return report


def stress_table(stress: dict[str, Any]) -> pd.DataFrame:
    """Write the figures of a stress test as a table.

    Args:
        stress: the result of :func:`measure_stress`.

    Returns:
        One row per split and change, the unchanged images first: split, change, title, and value, low and high of each
        measure, for example ``auroc``, ``auroc_low`` and ``auroc_high``.
    """
    table = []
    for split in (VALIDATION, TEST):
        part = stress[split]
        for entry in ({"key": UNCHANGED, "title": "Unchanged", **part[UNCHANGED]}, *part["changes"]):
            row = {"split": split, "change": entry["key"], "title": entry["title"]}
            for measure in STRESS_MEASURES:
                value = entry[measure]
                row |= {measure: value["value"], f"{measure}_low": value["low"], f"{measure}_high": value["high"]}
            table.append(row)
    return pd.DataFrame(table)


def _measure_split(
    rows: pd.DataFrame, probabilities: dict[str, Floats], threshold: float, *, resamples: int, seed: int
) -> dict[str, Any]:
    labels: NDArray[np.int64] = (rows["label"] == PNEUMONIA).to_numpy().astype(np.int64)

    def statistic(weight: Floats) -> dict[str, Floats]:
        values = {}
        for name, probability in probabilities.items():
            decision = decision_metrics(confusion(labels, probability, threshold, weight))
            values[f"auroc/{name}"] = auroc(labels, probability, weight)
            values |= {f"{measure}/{name}": decision[measure] for measure in STRESS_MEASURES if measure != "auroc"}
        for measure in STRESS_MEASURES:
            under_changes = [values[f"{measure}/{change.key}"] for change in ACQUISITION_CHANGES]
            values[f"{measure}/{MEAN}"] = np.mean(under_changes, axis=0)
        return values

    result = bootstrap(statistic, labels, rows["group"], resamples=resamples, seed=seed)

    def entry(name: str) -> dict[str, dict[str, float]]:
        return {measure: result.intervals[f"{measure}/{name}"].to_dict() for measure in STRESS_MEASURES}

    return {
        "images": len(rows),
        "patients": result.groups,
        "normal": int((labels == 0).sum()),
        "pneumonia": int(labels.sum()),
        UNCHANGED: entry(UNCHANGED),
        MEAN: entry(MEAN),
        "worst": {measure: _worst(result.intervals, measure) for measure in STRESS_MEASURES},
        "changes": [
            {"key": change.key, "kind": change.kind, "strength": change.strength, "title": change.title}
            | entry(change.key)
            for change in ACQUISITION_CHANGES
        ],
    }


def _worst(intervals: dict[str, Interval], measure: str) -> dict[str, Any]:
    """The lowest figure of a measure with the key of its change; the first of equals, None if all are undefined."""
    by_change = {change.key: intervals[f"{measure}/{change.key}"] for change in ACQUISITION_CHANGES}
    known = [key for key, interval in by_change.items() if np.isfinite(interval.value)]
    if not known:
        return {"change": None, **Interval(np.nan, np.nan, np.nan).to_dict()}
    worst = min(known, key=lambda key: by_change[key].value)
    return {"change": worst, **by_change[worst].to_dict()}

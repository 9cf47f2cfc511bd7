"""Evaluates a model: validation chooses temperature and thresholds; test is only measured, to report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import CLASSES, NORMAL, PNEUMONIA
from cxr.data.split_table import TEST, VALIDATION
from cxr.errors import DataError
from cxr.evaluation.bootstrap import CONFIDENCE, bootstrap
from cxr.evaluation.calibration import apply_temperature, fit_temperature
from cxr.evaluation.conformal import (
    check_enough_images,
    count_prediction_sets,
    fit_prediction_sets,
    prediction_set_metrics,
)
from cxr.evaluation.curves import calibration_curve, precision_recall_curve, roc_band, roc_curve
from cxr.evaluation.metrics import COUNTS, METRICS, Floats, auroc, compute_metrics, confusion, decision_metrics
from cxr.evaluation.operating_point import OperatingPoint, ThresholdRule, choose_operating_point
from cxr.evaluation.slices import SLICES, check_slices, measure_slices
from cxr.evaluation.training_data import check_model_fits
from cxr.images.prepared import PreparedImages
from cxr.models.metadata import ModelMetadata
from cxr.models.prediction_sets import PredictionSets

COLUMNS = ("path", "group", "label", "subtype", "split", "probability_raw")
"""Columns that predictions must have."""

HALF = 0.5

PREDICTION_SETS = "prediction_sets"
"""Entry of the report, and of each split in it; absent where no coverage is wanted."""

SUMMARY_OF_SETS = ("normal_coverage", "pneumonia_coverage", "uncertain")
"""Figures of the prediction sets on test that the summary has."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is evaluated.

    Attributes:
        rule: what the threshold is chosen for, see :data:`cxr.evaluation.operating_point.ThresholdRule`.
        target: wanted value of that rule.
        sensitivities: further sensitivities to report; their thresholds are chosen on validation too.
        resamples: number of bootstrap replicates over patients.
        seed: seed of the bootstrap.
        bins: number of bins of the calibration error.
        coverage: wanted coverage of the prediction sets of each class, above 0 and below 1; None for labels without
            UNCERTAIN.
        slices: columns whose slices are measured, see :mod:`cxr.evaluation.slices`; empty for none.
        slice_min_patients: fewest patients of a class for a figure of a slice.
    """

    rule: ThresholdRule
    target: float
    sensitivities: Sequence[float]
    resamples: int
    seed: int
    bins: int
    coverage: float | None
    slices: Sequence[str]
    slice_min_patients: int


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        temperature: calibration temperature, fitted on validation.
        operating_point: threshold, chosen on validation.
        predictions: validation and test rows with the added column probability (calibrated).
        report: all metrics; ``validation`` and ``test`` hold the same entries. Unknown values are NaN.
        curves: roc, roc_band, precision_recall and calibration of the test images.
        stress: the result of :func:`cxr.evaluation.stress_test.measure_stress`; None if there was no stress test.
        changed_predictions: its predictions, see :func:`cxr.evaluation.stress_test.predict_changed_images`; None
            likewise.
        prediction_sets: fitted on validation; None if no coverage is wanted.
    """

    temperature: float
    operating_point: OperatingPoint
    predictions: pd.DataFrame
    report: dict[str, Any]
    curves: dict[str, pd.DataFrame]
    stress: dict[str, Any] | None = None
    changed_predictions: pd.DataFrame | None = None
    prediction_sets: PredictionSets | None = None

    def summary(self) -> dict[str, float]:
        """Collect about ten numbers for a leaderboard.

        Returns:
            Name to value. Models are chosen by ``validation_auroc`` or ``validation_stress_auroc``, the mean under the
            changes of the stress test; ``test_...`` is only reported.
        """
        at_threshold = {name: entry["value"] for name, entry in self.report[TEST]["at_threshold"].items()}
        checks = self.report.get("honesty", {})
        return {
            "validation_auroc": self.report[VALIDATION]["at_threshold"]["auroc"]["value"],
            **{f"test_{name}": at_threshold[name] for name, metric in METRICS.items() if metric.in_summary},
            **{f"test_{name}_auroc": entry["auroc"]["value"] for name, entry in checks.items()},
            **self._stress_figures(),
            **self._prediction_set_figures(),
            **self._slice_figures(),
            "threshold": self.operating_point.threshold,
            "temperature": self.temperature,
        }

    def _stress_figures(self) -> dict[str, float]:
        if self.stress is None:
            return {}
        validation, test = self.stress[VALIDATION], self.stress[TEST]
        return {
            "validation_stress_auroc": validation["mean"]["auroc"]["value"],
            "test_stress_auroc": test["mean"]["auroc"]["value"],
            "test_stress_worst_auroc": test["worst"]["auroc"]["value"],
        }

    def _prediction_set_figures(self) -> dict[str, float]:
        if self.prediction_sets is None:
            return {}
        measured = self.report[TEST][PREDICTION_SETS]
        return {"coverage": self.prediction_sets.coverage} | {
            f"test_{name}": measured[name]["value"] for name in SUMMARY_OF_SETS
        }

    def _slice_figures(self) -> dict[str, float]:
        if SLICES not in self.report:
            return {}
        worst = self.report[TEST][SLICES]["worst"]
        return {"test_worst_slice_sensitivity": np.nan if worst is None else worst["sensitivity"]["value"]}

    def with_entries(self, entries: Mapping[str, Any]) -> Evaluation:
        """Add entries to the report.

        Args:
            entries: name to plain values, e.g. ``honesty`` with the result of
                :func:`cxr.evaluation.shortcut_checks.measure_shortcuts`.

        Returns:
            A new evaluation; this one stays as it is.
        """
        return replace(self, report={**self.report, **entries})

    def calibrate(self, metadata: ModelMetadata) -> ModelMetadata:
        """Add the chosen temperature, threshold and prediction sets to a model's metadata.

        Args:
            metadata: metadata of the evaluated model.

        Returns:
            New, calibrated metadata.
        """
        point = self.operating_point
        calibrated = metadata.with_calibration(self.temperature, point.threshold, point.sentence())
        return replace(calibrated, prediction_sets=self.prediction_sets)


def evaluation_rows(
    splits: pd.DataFrame, folder: Path, model: str, metadata: ModelMetadata, prepared: PreparedImages
) -> pd.DataFrame:
    """Select the validation and test images, after checking that the model was trained on this split.

    Args:
        splits: assignment with the columns path, label, subtype, patient, group and split.
        folder: folder of the split, with ``achieved.json``.
        model: expected name of the model.
        metadata: metadata of the trained model.
        prepared: prepared images that are to be predicted.

    Returns:
        The columns path, patient, group, label, subtype and split of validation and test.

    Raises:
        DataError: as :func:`cxr.evaluation.training_data.check_model_fits`.
    """
    check_model_fits(folder, model, metadata, prepared)
    rows = splits[splits["split"].isin((VALIDATION, TEST))]
    return rows[["path", "patient", "group", "label", "subtype", "split"]].reset_index(drop=True)


def check_coverage(rows: pd.DataFrame, coverage: float | None) -> None:
    """Refuse a coverage that the validation images are too few for, before a network has predicted them.

    Args:
        rows: the result of :func:`evaluation_rows`.
        coverage: wanted coverage of the prediction sets; None for none.

    Raises:
        ParameterError: if a class has too few validation images.
    """
    if coverage is not None:
        check_enough_images(_labels(rows[rows["split"] == VALIDATION]), coverage)


def evaluate(predictions: pd.DataFrame, settings: EvaluationSettings) -> Evaluation:
    """Calibrate and choose the thresholds on validation, then measure validation and test.

    Args:
        predictions: one row per image with the columns path, group (patients), label, subtype, split and
            probability_raw, and those of :func:`cxr.evaluation.slices.assign_slices` if slices are wanted; rows of
            other splits than validation and test are ignored.
        settings: how to evaluate.

    Returns:
        The evaluation.

    Raises:
        DataError: if a required column, split or class is missing, or a probability is not one.
        ParameterError: if a class has too few validation images for the wanted coverage.
    """
    rows = _check_predictions(predictions)
    check_slices(rows, settings.slices)
    resamples, seed, bins = settings.resamples, settings.seed, settings.bins
    validation = rows[rows["split"] == VALIDATION]
    labels = _labels(validation)
    temperature = fit_temperature(labels, validation["probability_raw"])
    rows = rows.assign(probability=apply_temperature(rows["probability_raw"], temperature))
    calibrated = rows.loc[rows["split"] == VALIDATION, "probability"]
    point = choose_operating_point(labels, calibrated, rule=settings.rule, target=settings.target)
    further_points = [
        choose_operating_point(labels, calibrated, rule="sensitivity", target=sensitivity)
        for sensitivity in settings.sensitivities
    ]
    sets = None
    if settings.coverage is not None:
        sets = fit_prediction_sets(labels, calibrated, coverage=settings.coverage)
    report: dict[str, Any] = {
        "temperature": temperature,
        "operating_point": point.to_dict(),
        **({} if sets is None else {PREDICTION_SETS: asdict(sets)}),
        "bootstrap": {"confidence": CONFIDENCE, "resamples": resamples, "seed": seed, "unit": "patient"},
        "bins": bins,
    }
    if settings.slices:
        report[SLICES] = {"columns": list(settings.slices), "min_patients": settings.slice_min_patients}
    for split in (VALIDATION, TEST):
        report[split] = measure_images(rows[rows["split"] == split], point, further_points, sets, settings)
    test = rows[rows["split"] == TEST]
    labels, probability = _labels(test), test["probability"].to_numpy()
    curves = {
        "roc": roc_curve(labels, probability),
        "roc_band": roc_band(labels, probability, test["group"], resamples=resamples, seed=seed),
        "precision_recall": precision_recall_curve(labels, probability),
        "calibration": calibration_curve(labels, test["probability_raw"], probability, bins=bins),
    }
    return Evaluation(temperature, point, rows, report, curves, prediction_sets=sets)


def measure_images(
    rows: pd.DataFrame,
    point: OperatingPoint,
    further_points: Sequence[OperatingPoint],
    sets: PredictionSets | None,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """Measure a set of images, such as those of a split; the same bootstrap draws serve all its metrics.

    Args:
        rows: one row per image with the columns group (patients), label, subtype, probability_raw and probability.
        point: the threshold.
        further_points: further thresholds, at which sensitivity and specificity are reported.
        sets: prediction sets of the model; None if it has none.
        settings: replicates and seed of the bootstrap, bins of the calibration error, and slices.

    Returns:
        Counts, and value, low and high of each measure; NaN where unknown.
    """
    labels, bins = _labels(rows), settings.bins
    probability, raw = rows["probability"].to_numpy(), rows["probability_raw"].to_numpy()
    subtypes = [name for name in ("bacteria", "virus") if (rows["subtype"] == name).any()]
    in_subtype = {
        name: ((rows["subtype"] == name) | (rows["label"] == NORMAL)).to_numpy().astype(np.float64) for name in subtypes
    }

    def sensitivity_and_specificity(threshold: float, weight: Floats, prefix: str) -> dict[str, Floats]:
        decision = decision_metrics(confusion(labels, probability, threshold, weight))
        return {f"{prefix}/{name}": decision[name] for name in ("sensitivity", "specificity")}

    def statistic(weight: Floats) -> dict[str, Floats]:
        calibrated = compute_metrics(labels, probability, point.threshold, weight, bins=bins)
        at_half = compute_metrics(labels, raw, HALF, weight, bins=bins)
        values = {f"at_threshold/{name}": value for name, value in calibrated.items()}
        values |= {
            f"uncalibrated_at_half/{name}": at_half[name]
            for name, metric in METRICS.items()
            if metric.kind != "ranking"
        }
        for name, member in in_subtype.items():
            values[f"{name}/auroc"] = auroc(labels, probability, weight * member)
            values |= sensitivity_and_specificity(point.threshold, weight * member, name)
        for position, further in enumerate(further_points):
            values |= sensitivity_and_specificity(further.threshold, weight, str(position))
        if sets is not None:
            measured = prediction_set_metrics(labels, probability, sets, weight)
            values |= {f"{PREDICTION_SETS}/{name}": value for name, value in measured.items()}
        return values

    drawn = bootstrap(statistic, labels, rows["group"], resamples=settings.resamples, seed=settings.seed)

    def entries(prefix: str) -> dict[str, dict[str, float]]:
        names = (name for name in drawn.intervals if name.rpartition("/")[0] == prefix)
        return {name.rpartition("/")[2]: drawn.intervals[name].to_dict() for name in names}

    return {
        "images": len(rows),
        "patients": drawn.groups,
        "normal": int((labels == 0).sum()),
        "pneumonia": int(labels.sum()),
        "skipped_resamples": drawn.skipped,
        "at_threshold": entries("at_threshold"),
        "confusion": _counts(labels, probability, point.threshold),
        "uncalibrated_at_half": entries("uncalibrated_at_half"),
        "confusion_at_half": _counts(labels, raw, HALF),
        "subtypes": {name: {"images": int((rows["subtype"] == name).sum()), **entries(name)} for name in subtypes},
        "further_points": [
            {"wanted_sensitivity": further.target, "threshold": further.threshold, **entries(str(position))}
            for position, further in enumerate(further_points)
        ],
        **(
            {}
            if sets is None
            else {PREDICTION_SETS: {"counts": count_prediction_sets(probability, sets), **entries(PREDICTION_SETS)}}
        ),
        **({SLICES: _measure_slices(rows, point, settings)} if settings.slices else {}),
    }


def _measure_slices(rows: pd.DataFrame, point: OperatingPoint, settings: EvaluationSettings) -> dict[str, Any]:
    return measure_slices(
        rows, point.threshold, settings.slices,
        min_patients=settings.slice_min_patients, resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip


def _check_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in predictions.columns]
    if missing:
        raise DataError(
            f"expected predictions with columns {', '.join(COLUMNS)}, received none of: {', '.join(missing)}"
        )
    rows = predictions[predictions["split"].isin((VALIDATION, TEST))].reset_index(drop=True)
    for split in (VALIDATION, TEST):
        if not (rows["split"] == split).any():
            raise DataError(f"expected {split} images, received none; choose a split protocol with a {split} share")
    raw = rows["probability_raw"].to_numpy(dtype=np.float64)
    wrong = rows["path"][~((raw >= 0) & (raw <= 1)) | ~rows["label"].isin(CLASSES)]
    if len(wrong):
        raise DataError(
            "expected a label and a probability in 0 .. 1 for each image, received others for "
            f"{len(wrong)} images: {', '.join(wrong.head(10))}; train the model again"
        )
    return rows


def _labels(rows: pd.DataFrame) -> NDArray[np.int64]:
    return (rows["label"] == PNEUMONIA).to_numpy().astype(np.int64)


def _counts(labels: NDArray[np.int64], probability: NDArray[np.float64], threshold: float) -> dict[str, int]:
    counts = confusion(labels, probability, threshold)
    return {name: int(counts[name]) for name in COUNTS}

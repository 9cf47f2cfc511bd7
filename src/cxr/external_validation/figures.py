"""Figures of a model on labelled images from elsewhere, with its own threshold and calibration; nothing is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxr.data.dataset import CLASSES, NORMAL, PNEUMONIA
from cxr.data.split_table import TEST
from cxr.data.statistics import share_interval
from cxr.evaluation.bootstrap import CONFIDENCE
from cxr.evaluation.curves import calibration_curve, precision_recall_curve, roc_band, roc_curve
from cxr.evaluation.evaluate import EvaluationSettings, measure_images
from cxr.evaluation.metrics import METRICS
from cxr.evaluation.operating_point import OperatingPoint
from cxr.evaluation.slices import SLICES
from cxr.external_validation.slices import OutsideSlices
from cxr.models.prediction_sets import PredictionSets
from cxr.results.formatting import format_value
from cxr.results.judgements import ALL, ANSWERED

OWN_CLASS_MEASURE = {PNEUMONIA: "sensitivity", NORMAL: "specificity"}
"""The measure of a class that needs no image of the other one."""
PATIENT, IMAGE = "patient", "image"
"""What the bootstrap draws."""


@dataclass(frozen=True)
class Judgement:
    """A model on images from elsewhere.

    Attributes:
        report: plain values: ``bootstrap``, ``bins``, ``refusals``, ``slices`` if any are wanted, and the entries
            :data:`ANSWERED` and :data:`ALL` in the form of a split in an evaluation's report; None for an entry without
            images. Unknown values are NaN.
        curves: roc, roc_band, precision_recall and calibration of the images that the model answers for; empty if
            these are of one class.
        notes: sentences about figures that are missing, or that mean less than usual.
    """

    report: dict[str, Any]
    curves: Mapping[str, pd.DataFrame]
    notes: tuple[str, ...]

    def sentence(self) -> str:
        """Say the result in a sentence.

        Returns:
            For example ``"AUROC 0.8021, sensitivity 92.3 %, specificity 28.2 %; 2 of 80 images refused"``.
        """
        measures = (self.report[ANSWERED] or {"at_threshold": {}})["at_threshold"]
        figures = [
            f"{title} {format_value(name, measures[name]['value'])}"
            for name, title in (("auroc", "AUROC"), ("sensitivity", "sensitivity"), ("specificity", "specificity"))
            if name in measures and np.isfinite(measures[name]["value"])
        ]
        refusals = self.report["refusals"]
        refused = f"{refusals['refused']:,} of {refusals['images']:,} images refused"
        return f"{', '.join(figures)}; {refused}" if figures else refused


def measure_judgement(
    rows: pd.DataFrame,
    threshold: float,
    sets: PredictionSets | None,
    slices: OutsideSlices,
    *,
    unit: str,
    resamples: int,
    seed: int,
    bins: int,
) -> Judgement:
    """Measure a model with and without the images that it refuses.

    Args:
        rows: what :func:`cxr.external_validation.predictions.predict_labelled_images` returned, with the columns of
            :meth:`OutsideSlices.assign`.
        threshold: the model's threshold.
        sets: its prediction sets; None if it has none.
        slices: the slices that are wanted.
        unit: :data:`PATIENT` if the patients are known, else :data:`IMAGE`.
        resamples: number of bootstrap replicates.
        seed: seed of the bootstrap.
        bins: number of bins of the calibration error.

    Returns:
        The figures.
    """
    settings = EvaluationSettings(
        "fixed", threshold, (), resamples, seed, bins, None, slices.columns, slices.min_patients
    )
    point = OperatingPoint("fixed", threshold, threshold, np.nan, np.nan, np.nan, np.nan)
    readable = rows[rows["error"] == ""].assign(split=TEST)
    parts = {ANSWERED: readable[readable["refusal"].isna()], ALL: readable}
    report: dict[str, Any] = {
        "bootstrap": {"confidence": CONFIDENCE, "resamples": resamples, "seed": seed, "unit": unit},
        "bins": bins,
        "refusals": measure_refusals(readable),
    }
    notes: list[str] = []
    if slices.columns:
        report[SLICES] = {
            "columns": list(slices.columns), "absent": list(slices.absent), "min_patients": slices.min_patients
        }  # fmt: skip
    if slices.absent:
        notes.append(f"no slices of {', '.join(slices.absent)}: no table of the data set has such a column")
    for name, part in parts.items():
        report[name] = None if part.empty else _measure_part(part, point, sets, settings, unit)
        notes += _notes(part, name)
    if unit == IMAGE:
        notes.append("patients are unknown: the intervals are over images, and too narrow if a patient has several")
    answered = parts[ANSWERED]
    curves: dict[str, pd.DataFrame] = {}
    if answered["label"].nunique() == len(CLASSES):
        labels, probability = (answered["label"] == PNEUMONIA).to_numpy(np.int64), answered["probability"].to_numpy()
        curves = {
            "roc": roc_curve(labels, probability),
            "roc_band": roc_band(labels, probability, answered["group"], resamples=resamples, seed=seed),
            "precision_recall": precision_recall_curve(labels, probability),
            "calibration": calibration_curve(labels, answered["probability_raw"], probability, bins=bins),
        }
    return Judgement(report, curves, tuple(notes))


def measure_refusals(rows: pd.DataFrame) -> dict[str, Any]:
    """Measure how many images get no answer, and why.

    Args:
        rows: images that can be read, with label and refusal.

    Returns:
        ``images``, ``refused``, its ``share`` with ``low`` and ``high`` (Wilson), ``reasons`` (kind to number of
        images), and the same counts and shares of each class.
    """
    reasons = rows["refusal"].dropna().value_counts()
    return {
        **_refused_share(rows),
        "reasons": {str(kind): int(count) for kind, count in reasons.items()},
        "classes": {label: _refused_share(rows[rows["label"] == label]) for label in CLASSES},
    }


def _refused_share(rows: pd.DataFrame) -> dict[str, float]:
    images, refused = len(rows), int(rows["refusal"].notna().sum())
    low, high = share_interval(refused, images)
    return {
        "images": images, "refused": refused, "share": refused / images if images else np.nan, "low": low, "high": high
    }  # fmt: skip


def _measure_part(
    rows: pd.DataFrame, point: OperatingPoint, sets: PredictionSets | None, settings: EvaluationSettings, unit: str
) -> dict[str, Any]:
    entry = measure_images(rows, point, (), sets, settings)
    if unit == IMAGE:
        del entry["patients"]
        measured = entry.get(SLICES, {"measured": [], "too_small": []})
        for part in (*measured["measured"], *measured["too_small"]):  # the worst one is among them
            del part["patients"]
    present = rows["label"].unique().tolist()
    if len(present) == 1:
        unknown = dict.fromkeys(("value", "low", "high"), np.nan)
        measure = OWN_CLASS_MEASURE[present[0]]
        for group in ("at_threshold", "uncalibrated_at_half"):
            entry[group] = {name: value if name == measure else unknown for name, value in entry[group].items()}
    return entry


def _notes(rows: pd.DataFrame, name: str) -> list[str]:
    subject = {ANSWERED: "the images that get an answer", ALL: "all images that can be read"}[name]
    present = rows["label"].unique().tolist()
    if not present:
        return [f"no figures of {subject}: there are none"]
    if len(present) == 1:
        measure = METRICS[OWN_CLASS_MEASURE[present[0]]].title.lower()
        return [f"{subject} are all {present[0]}: only the {measure} is known, every other figure needs both classes"]
    return []

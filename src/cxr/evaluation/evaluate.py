"""Judging a model: validation chooses temperature and threshold, test is read once, to report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.data.dataset import CLASSES, NORMAL, PNEUMONIA
from cxr.errors import DataError
from cxr.evaluation.bootstrap import CONFIDENCE, bootstrap
from cxr.evaluation.calibration import apply_temperature, fit_temperature
from cxr.evaluation.curves import calibration_curve, precision_recall_curve, roc_band, roc_curve
from cxr.evaluation.metrics import (
    BINS,
    COUNTS,
    DECISION,
    PROBABILITY,
    Floats,
    auroc,
    confusion,
    decision_measures,
    measure,
)
from cxr.evaluation.operating_point import OperatingPoint, Rule, choose
from cxr.images.prepared import Prepared
from cxr.images.recipes import Recipe
from cxr.models.metadata import ModelCard

COLUMNS = ("path", "group", "label", "subtype", "split", "probability_raw")
"""Columns that predictions must have."""

VALIDATION, TEST = "validation", "test"
HALF = 0.5
CHUNK = 512


class Predicts(Protocol):
    """What evaluation needs of a network."""

    def probabilities(self, images: NDArray[np.uint8], batch_size: int = ...) -> NDArray[np.float64]:
        """Raw probabilities of pneumonia, (n,), for prepared images (n, height, width, planes)."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that judging a model found.

    Attributes:
        temperature: calibration temperature, fitted on validation.
        point: threshold, chosen on validation.
        predictions: validation and test rows with the added column probability (calibrated).
        report: all figures; ``validation`` and ``test`` hold the same entries. Unknown values are NaN.
        curves: roc, roc_band, precision_recall and calibration of the test images.
    """

    temperature: float
    point: OperatingPoint
    predictions: pd.DataFrame
    report: dict[str, Any]
    curves: dict[str, pd.DataFrame]

    def summary(self) -> dict[str, float]:
        """About ten numbers for a leaderboard.

        Returns:
            Name to value; ``validation_auroc`` is what models are chosen by, ``test_...`` is only reported.
        """
        at_threshold = {name: entry["value"] for name, entry in self.report[TEST]["at_threshold"].items()}
        wanted = ("auroc", "average_precision", *DECISION, "brier", "calibration_error")
        checks = self.report.get("honesty", {})
        return {
            "validation_auroc": self.report[VALIDATION]["at_threshold"]["auroc"]["value"],
            **{f"test_{name}": at_threshold[name] for name in wanted},
            **{f"test_{name}_auroc": entry["auroc"]["value"] for name, entry in checks.items()},
            "threshold": self.point.threshold,
            "temperature": self.temperature,
        }

    def with_entries(self, **entries: Any) -> Evaluation:
        """Add to the report what was measured beside the judgement.

        Args:
            entries: name to plain values, e.g. ``honesty`` of :func:`cxr.evaluation.shortcut_checks.honesty`.

        Returns:
            A new evaluation; this one stays as it is.
        """
        return replace(self, report={**self.report, **entries})


def rows_to_judge(splits: pd.DataFrame, folder: Path, model: str, card: ModelCard, prepared: Prepared) -> pd.DataFrame:
    """Take the validation and test images, once it is sure that the model was trained on this very split.

    Args:
        splits: assignment with the columns path, label, subtype, patient, group and split.
        folder: folder of the split, with ``achieved.json``.
        model: name that the model is judged under.
        card: card of the trained model.
        prepared: prepared images that are to be predicted.

    Returns:
        The columns path, patient, group, label, subtype and split of validation and test.

    Raises:
        DataError: if the model has another name, or was trained on another split, whose training images may
            be among these test images, or on images prepared by another recipe.
    """
    if model != card.model:
        raise DataError(f"expected the card of {model}, received model={card.model}; give the folder of {model}")
    digest = json.loads((folder / "achieved.json").read_text(encoding="utf-8"))["digest"]
    if digest != card.split_digest:
        raise DataError(
            f"expected the split that {card.model} was trained on (digest={card.split_digest}), "
            f"received splits={folder} with digest={digest}; train the model again"
        )
    if prepared.recipe != Recipe.from_dict(card.recipe):
        raise DataError(
            f"expected images of the recipe that {card.model} was trained on ({card.recipe}), "
            f"received {prepared.recipe.to_dict()}; run `cxr preprocess` with that recipe"
        )
    kept = splits[splits["split"].isin((VALIDATION, TEST))]
    return kept[["path", "patient", "group", "label", "subtype", "split"]].reset_index(drop=True)


def predict(
    predictor: Predicts,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    batch_size: int = 64,
    progress: bool = True,
) -> NDArray[np.float64]:
    """Predict some rows of a memory-mapped array without reading the others.

    Args:
        predictor: the network.
        images: (n, height, width, planes), uint8.
        rows: (m,), rows to predict, in any order.
        batch_size: images per network call.
        progress: whether to show a progress bar on stderr.

    Returns:
        (m,), raw probabilities in the order of ``rows``.
    """
    found = np.empty(len(rows), dtype=np.float64)
    # Rows are read in the order of the file: one pass over the disk, whatever order was asked for.
    order = np.argsort(rows, kind="stable")
    with tqdm(total=len(rows), desc="evaluate", unit="image", disable=None if progress else True) as bar:
        for start in range(0, len(rows), CHUNK):
            part = order[start : start + CHUNK]
            found[part] = predictor.probabilities(images[rows[part]], batch_size=batch_size)
            bar.update(len(part))
    return found


def evaluate(
    predictions: pd.DataFrame,
    *,
    rule: Rule = "sensitivity",
    target: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    bins: int = BINS,
    sensitivities: Sequence[float] = (),
) -> Evaluation:
    """Calibrate and choose the threshold on validation, then measure validation and test.

    Args:
        predictions: one row per image with the columns path, group (patient), label, subtype, split and
            probability_raw; rows of other splits than validation and test are ignored.
        rule: what the threshold is chosen for, see :data:`cxr.evaluation.operating_point.Rule`.
        target: wanted value of that rule.
        resamples: bootstrap replicates over patients.
        seed: seed of the bootstrap.
        bins: bins of the calibration error.
        sensitivities: further sensitivities to report; each threshold is chosen on validation too.

    Returns:
        The evaluation.

    Raises:
        DataError: if a column, a split or a class that is needed is missing, or a probability is not one.
    """
    rows = _checked(predictions)
    chosen_on = rows[rows["split"] == VALIDATION]
    sick = _target(chosen_on)
    temperature = fit_temperature(sick, chosen_on["probability_raw"])
    rows = rows.assign(probability=apply_temperature(rows["probability_raw"], temperature))
    calibrated = rows.loc[rows["split"] == VALIDATION, "probability"]
    point = choose(sick, calibrated, rule=rule, goal=target)
    further = [choose(sick, calibrated, rule="sensitivity", goal=value) for value in sensitivities]
    report: dict[str, Any] = {
        "temperature": temperature,
        "operating_point": point.to_dict(),
        "bootstrap": {"confidence": CONFIDENCE, "resamples": resamples, "seed": seed, "unit": "patient"},
        "bins": bins,
    }
    for split in (VALIDATION, TEST):
        part = rows[rows["split"] == split]
        report[split] = _judge(part, point, further, resamples=resamples, seed=seed, bins=bins)
    test = rows[rows["split"] == TEST]
    sick, probability = _target(test), test["probability"].to_numpy()
    curves = {
        "roc": roc_curve(sick, probability),
        "roc_band": roc_band(sick, probability, test["group"], resamples=resamples, seed=seed),
        "precision_recall": precision_recall_curve(sick, probability),
        "calibration": calibration_curve(sick, test["probability_raw"], probability, bins=bins),
    }
    return Evaluation(temperature, point, rows, report, curves)


def _judge(
    part: pd.DataFrame,
    point: OperatingPoint,
    further: Sequence[OperatingPoint],
    *,
    resamples: int,
    seed: int,
    bins: int,
) -> dict[str, Any]:
    """Measure one split; one set of bootstrap draws serves all its figures."""
    sick = _target(part)
    probability, raw = part["probability"].to_numpy(), part["probability_raw"].to_numpy()
    subtypes = [name for name in ("bacteria", "virus") if (part["subtype"] == name).any()]
    members = {
        name: ((part["subtype"] == name) | (part["label"] == NORMAL)).to_numpy().astype(np.float64) for name in subtypes
    }

    def figures(weight: Floats) -> dict[str, Floats]:
        calibrated = measure(sick, probability, point.threshold, weight, bins=bins)
        half = measure(sick, raw, HALF, weight, bins=bins)
        found = {f"at_threshold/{name}": value for name, value in calibrated.items()}
        found |= {f"uncalibrated_at_half/{name}": half[name] for name in (*DECISION, *PROBABILITY)}
        for name, member in members.items():
            taken = weight * member
            found[f"{name}/auroc"] = auroc(sick, probability, taken)
            decision = decision_measures(confusion(sick, probability, point.threshold, taken))
            found |= {f"{name}/{key}": decision[key] for key in ("sensitivity", "specificity")}
        for position, other in enumerate(further):
            decision = decision_measures(confusion(sick, probability, other.threshold, weight))
            found |= {f"{position}/{key}": decision[key] for key in ("sensitivity", "specificity")}
        return found

    drawn = bootstrap(figures, sick, part["group"], resamples=resamples, seed=seed)

    def entries(prefix: str) -> dict[str, dict[str, float]]:
        names = (name for name in drawn.intervals if name.rpartition("/")[0] == prefix)
        return {name.rpartition("/")[2]: drawn.intervals[name].to_dict() for name in names}

    return {
        "images": len(part),
        "patients": drawn.groups,
        "normal": int((sick == 0).sum()),
        "pneumonia": int(sick.sum()),
        "skipped_resamples": drawn.skipped,
        "at_threshold": entries("at_threshold"),
        "confusion": _counts(sick, probability, point.threshold),
        "uncalibrated_at_half": entries("uncalibrated_at_half"),
        "confusion_at_half": _counts(sick, raw, HALF),
        "subtypes": {name: {"images": int((part["subtype"] == name).sum()), **entries(name)} for name in subtypes},
        "further_points": [
            {"wanted_sensitivity": other.target, "threshold": other.threshold, **entries(str(position))}
            for position, other in enumerate(further)
        ],
    }


def _checked(predictions: pd.DataFrame) -> pd.DataFrame:
    absent = [name for name in COLUMNS if name not in predictions.columns]
    if absent:
        raise DataError(
            f"expected predictions with columns {', '.join(COLUMNS)}, received none of: {', '.join(absent)}"
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


def _target(rows: pd.DataFrame) -> NDArray[np.int64]:
    return (rows["label"] == PNEUMONIA).to_numpy().astype(np.int64)


def _counts(target: NDArray[np.int64], probability: NDArray[np.float64], threshold: float) -> dict[str, int]:
    found = confusion(target, probability, threshold)
    return {name: int(found[name]) for name in COUNTS}

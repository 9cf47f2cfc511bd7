"""Judges a detector beside reference methods: validation chooses, test is only measured, to report.

All methods get the same choices (:mod:`cxr.regions.operating_point`), the same images and the same draws of the
bootstrap over patients. Three measures:

* ``mean_average_precision`` of the RSNA challenge, at the operating point (:mod:`cxr.regions.average_precision`);
* ``sensitivity``: share of opacities that are hit at a stated number of false positives per image, whatever the
  threshold of the operating point (:mod:`cxr.regions.free_response`);
* ``auroc``: pneumonia against normal by the highest score of an image's boxes; 0 for an image without boxes.

**Strata** (subtype, difficulty): the mean average precision of a stratum is that of its images with pneumonia alone, so
it counts no false positive in a normal image. Its sensitivity counts its opacities, at the threshold of all images. Its
AUROC compares its images with all normal images. ``pneumonia`` is the stratum of all images with pneumonia: what the
boxes that count would reach if a perfect classifier had removed those of normal images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cxr.data.dataset import PNEUMONIA, DatasetCard
from cxr.data.split_table import TEST, VALIDATION
from cxr.evaluation.bootstrap import CONFIDENCE, BootstrapResult, Interval, bootstrap
from cxr.evaluation.metrics import Floats, auroc
from cxr.regions.average_precision import IOU_THRESHOLDS, image_average_precisions, mean_average_precision
from cxr.regions.free_response import free_response_curve, sensitivity_at_false_positives
from cxr.regions.image_tables import ALL, check_tables, divide_into_strata
from cxr.regions.matching import PREDICTION_COLUMNS, match_predictions
from cxr.regions.operating_point import RegionOperatingPoint, choose_region_operating_point

MEASURES: Mapping[str, str] = {
    "mean_average_precision": "Mean average precision",
    "sensitivity": "Sensitivity",
    "auroc": "AUROC of the highest score",
}
"""Key in reports to the name for readers."""

PER_IMAGE = "average_precision"
"""Column of the table of images: what the mean average precision of the detector is the mean of; NaN where left out."""

BAND_RATES = tuple((2.0 ** np.arange(-4, 2.25, 0.25)).tolist())
"""False positives per image, 1/16 to 4, at which the interval of the free-response ROC is computed."""

PHANTOM_NOTE = "drawn phantoms; says nothing about patients"


@dataclass(frozen=True, eq=False)
class RegionMethod:
    """A method that draws boxes.

    Attributes:
        title: its name for readers.
        predictions: boxes with :data:`cxr.regions.matching.PREDICTION_COLUMNS`, also those with low scores, for
            validation and test images; with :data:`cxr.regions.operating_point.HEAT_LEVEL` if they come from heat.
    """

    title: str
    predictions: pd.DataFrame


@dataclass(frozen=True)
class RegionSettings:
    """How methods are judged.

    Attributes:
        box_scales: factors of the boxes' sides that validation chooses from.
        iou_threshold: for sensitivity and free response, a box hits an opacity above this intersection over union.
        false_positives: false positives per image at which sensitivity is reported.
        resamples: number of bootstrap replicates over patients.
        seed: seed of the bootstrap.
    """

    box_scales: Sequence[float]
    iou_threshold: float
    false_positives: float
    resamples: int
    seed: int


@dataclass(frozen=True, eq=False)
class RegionEvaluation:
    """The results of judging a detector beside reference methods.

    Attributes:
        report: all figures, see :func:`evaluate_regions`.
        images: the validation and test images with :data:`cxr.regions.image_tables.IMAGE_COLUMNS`, and the first
            method's :data:`PER_IMAGE` and ``highest_score``.
        boxes: the opacities of these images.
        predictions: boxes of all methods with their scores, scaled as validation chose, with the columns ``method``
            and ``counts`` (whether the score reaches the method's threshold).
        free_response: the curves of the test images: method, false_positives_per_image, sensitivity, threshold.
        free_response_band: 95 % interval of the first method's curve: false_positives_per_image, low, high.
    """

    report: dict[str, Any]
    images: pd.DataFrame
    boxes: pd.DataFrame
    predictions: pd.DataFrame
    free_response: pd.DataFrame
    free_response_band: pd.DataFrame

    @property
    def data(self) -> str:
        """What the images are, for tables: the name of the data set, or :data:`PHANTOM_NOTE`."""
        return str(self.report["data"]["note"] or self.report["data"]["name"])

    @property
    def operating_point(self) -> RegionOperatingPoint:
        """What validation chose for the detector, which is the first method."""
        return RegionOperatingPoint(**next(iter(self.report["methods"].values()))["operating_point"])

    def with_entries(self, entries: Mapping[str, Any]) -> RegionEvaluation:
        """Add entries to the report.

        Args:
            entries: name to plain values, e.g. ``unmarked`` with the result of
                :meth:`cxr.regions.unmarked_images.UnmarkedImages.evaluate`.

        Returns:
            A new evaluation; this one stays as it is.
        """
        return replace(self, report={**self.report, **entries})

    def summary(self) -> dict[str, float]:
        """Collect the figures of the detector, which is the first method, for a leaderboard.

        Returns:
            Name to value. Detectors are chosen by ``validation_mean_average_precision``; ``test_...`` is only reported.
            See :func:`name_figures`.
        """
        figures = name_figures(self.report)
        of_test = (name_measure(measure, self.report["rules"]["false_positives"]) for measure in MEASURES)
        return {
            **{name: value for name, value in figures.items() if name.startswith("validation_mean_average_precision")},
            **{f"test_{measure}": figures[f"test_{measure}"] for measure in of_test},
            "threshold": self.operating_point.threshold,
            "box_scale": self.operating_point.box_scale,
        }

    def table(self, split: str) -> pd.DataFrame:
        """Tabulate all methods and strata.

        Args:
            split: ``"validation"`` or ``"test"``.

        Returns:
            One row per stratum and method: stratum, images, opacities, method, title; value, low and high of each
            measure, for example ``auroc``, ``auroc_low`` and ``auroc_high``; threshold, box_scale, heat_level; and
            ``data``, which says what images they are.
        """
        part = self.report[split]
        rows = []
        for stratum, counts in part["strata"].items():
            for name, method in self.report["methods"].items():
                row = {"split": split, "stratum": stratum, **counts, "method": name, "title": method["title"]}
                for measure in MEASURES:
                    entry = part["methods"][name][stratum][measure]
                    row |= {measure: entry["value"], f"{measure}_low": entry["low"], f"{measure}_high": entry["high"]}
                point = {key: method["operating_point"][key] for key in ("threshold", "box_scale", "heat_level")}
                rows.append(row | point | {"data": self.data})
        return pd.DataFrame(rows)


def name_figures(report: Mapping[str, Any]) -> dict[str, float]:
    """Give the figures of all images a flat name, as leaderboards and the tracking server take them.

    Args:
        report: the report of an evaluation, see :func:`evaluate_regions`.

    Returns:
        Name to value: ``SPLIT_MEASURE`` for the detector, ``SPLIT_MEASURE_METHOD`` for the other methods, for example
        ``test_sensitivity_at_0.5_fp`` and ``validation_mean_average_precision_prior``; ``unmarked_MEASURE`` for images
        of another data set, if there were any.
    """
    rate, detector = report["rules"]["false_positives"], next(iter(report["methods"]))
    unmarked = {name: report.get("unmarked", {}).get(name) for name in ("auroc", "area_in_lungs")}
    return {
        f"{split}_{name_measure(measure, rate)}{'' if method == detector else f'_{method}'}": entry["value"]
        for split in (VALIDATION, TEST)
        for method, strata in report[split]["methods"].items()
        for measure, entry in strata[ALL].items()
    } | {f"unmarked_{name}": entry["value"] for name, entry in unmarked.items() if entry is not None}


def name_measure(measure: str, false_positives: float) -> str:
    """Name a measure so that it says at how many false positives per image a sensitivity is meant.

    Args:
        measure: key of :data:`MEASURES`.
        false_positives: false positives per image.

    Returns:
        For example ``"sensitivity_at_0.5_fp"``; the key of another measure as it is.
    """
    return f"{measure}_at_{false_positives:g}_fp" if measure == "sensitivity" else measure


def evaluate_regions(
    images: pd.DataFrame,
    boxes: pd.DataFrame,
    methods: Mapping[str, RegionMethod],
    card: DatasetCard,
    settings: RegionSettings,
) -> RegionEvaluation:
    """Choose the operating point of each method on validation, then measure validation and test.

    Args:
        images: the images with :data:`cxr.regions.image_tables.IMAGE_COLUMNS`; rows of other splits than validation and
            test are ignored.
        boxes: their opacities with :data:`cxr.regions.matching.BOX_COLUMNS`.
        methods: key, without a slash, to method. The first one is the detector, and the others are what it is compared
            with.
        card: card of the data set. Figures of phantoms say that they are.
        settings: how to judge.

    Returns:
        The evaluation. Its report holds ``data`` (name, kind, note), ``rules``, ``bootstrap``, ``methods`` (title and
        operating point), and for ``validation`` and ``test`` the counts ``images``, ``patients``, ``opacities``, the
        ``strata`` with their counts, and ``methods``: key to stratum to measure to value, low and high. Beside the
        strata, ``against`` holds for each method but the first the ``difference`` and the ``ratio`` of the detector's
        mean average precision to that of the method (NaN for a method with 0).

    Raises:
        DataError: if a column, a split, the opacities of a split or a class is missing, or a prediction is wrong.
    """
    images, boxes = check_tables(
        images, boxes, {f"the predictions of {name}": method.predictions for name, method in methods.items()}
    )
    is_validation = (images["split"] == VALIDATION).to_numpy()
    points: dict[str, RegionOperatingPoint] = {}
    resized: dict[str, pd.DataFrame] = {}
    for name, method in methods.items():
        predictions = method.predictions[method.predictions["path"].isin(images["path"])]
        points[name] = choose_region_operating_point(
            images[is_validation], boxes, predictions, box_scales=settings.box_scales
        )
        resized[name] = points[name].resize(images, predictions)[PREDICTION_COLUMNS]
    report: dict[str, Any] = {
        **_describe(card, settings),
        "methods": {
            name: {"title": method.title, "operating_point": points[name].to_dict()} for name, method in methods.items()
        },
    }
    for split in (VALIDATION, TEST):
        part = images[images["split"] == split]
        report[split], intervals = _measure_split(part, boxes, resized, points, settings)
    # The intervals of the last split, test, hold the band of the detector's curve.
    band = [intervals[f"band/{rate}"] for rate in BAND_RATES]
    test_paths = images.loc[~is_validation, "path"].tolist()
    curves = {
        name: free_response_curve(match_predictions(test_paths, boxes, table, (settings.iou_threshold,)))
        for name, table in resized.items()
    }
    detector = next(iter(methods))
    matched = match_predictions(images["path"].tolist(), boxes, resized[detector], IOU_THRESHOLDS)
    measured = images.assign(
        **{PER_IMAGE: image_average_precisions(matched, points[detector].threshold)},
        highest_score=matched.highest_scores(),
    )
    decided = [
        table.assign(method=name, counts=table["score"] >= points[name].threshold) for name, table in resized.items()
    ]
    return RegionEvaluation(
        report,
        measured,
        boxes,
        pd.concat([table for table in decided if len(table)] or decided[:1], ignore_index=True),
        pd.concat([table.assign(method=name) for name, table in curves.items()], ignore_index=True),
        pd.DataFrame(
            {
                "false_positives_per_image": BAND_RATES,
                "low": [interval.low for interval in band],
                "high": [interval.high for interval in band],
            }
        ),
    )


def _describe(card: DatasetCard, settings: RegionSettings) -> dict[str, Any]:
    """The entries of the report that say what is measured, and how."""
    note = PHANTOM_NOTE if card.kind == "phantom" else None
    return {
        "data": {"name": card.name, "kind": card.kind, "note": note},
        "rules": {
            "iou_thresholds": list(IOU_THRESHOLDS),
            "iou_threshold": settings.iou_threshold,
            "false_positives": settings.false_positives,
            "box_scales": list(settings.box_scales),
        },
        "bootstrap": {
            "confidence": CONFIDENCE,
            "resamples": settings.resamples,
            "seed": settings.seed,
            "unit": "patient",
        },
    }


def _measure_split(
    images: pd.DataFrame,
    boxes: pd.DataFrame,
    predictions: Mapping[str, pd.DataFrame],
    points: Mapping[str, RegionOperatingPoint],
    settings: RegionSettings,
) -> tuple[dict[str, Any], dict[str, Interval]]:
    """Measure all methods on one split with the same bootstrap draws."""
    paths, labels = images["path"].tolist(), (images["label"] == PNEUMONIA).to_numpy()
    strata, detector = divide_into_strata(images), next(iter(predictions))
    matched = {name: match_predictions(paths, boxes, table, IOU_THRESHOLDS) for name, table in predictions.items()}
    at_one_iou = {
        name: match_predictions(paths, boxes, table, (settings.iou_threshold,)) for name, table in predictions.items()
    }
    per_image = {name: image_average_precisions(matched[name], points[name].threshold) for name in matched}
    highest = {name: matched[name].highest_scores() for name in matched}

    def statistic(weight: Floats) -> dict[str, Floats]:
        values: dict[str, Floats] = {}
        for name in predictions:
            rates = (settings.false_positives, *(BAND_RATES if name == detector else ()))
            sensitivity = sensitivity_at_false_positives(at_one_iou[name], rates, weight, strata)
            for stratum, members in strata.items():
                values[f"{name}/{stratum}/mean_average_precision"] = mean_average_precision(
                    per_image[name], weight * members
                )
                values[f"{name}/{stratum}/sensitivity"] = sensitivity[stratum][:, 0]
                values[f"{name}/{stratum}/auroc"] = auroc(labels, highest[name], weight * (members | ~labels))
            if name == detector:
                values |= {f"band/{rate}": sensitivity[ALL][:, 1 + k] for k, rate in enumerate(BAND_RATES)}
            else:
                ours, theirs = (values[f"{key}/{ALL}/mean_average_precision"] for key in (detector, name))
                values[f"{name}/against/difference"] = ours - theirs
                values[f"{name}/against/ratio"] = np.divide(
                    ours, theirs, out=np.full_like(ours, np.nan), where=theirs > 0
                )
        return values

    result = bootstrap(statistic, labels, images["group"], resamples=settings.resamples, seed=settings.seed)
    opacities = matched[detector].opacities
    report = {
        "images": len(images),
        "patients": result.groups,
        "opacities": int(opacities.sum()),
        "skipped_resamples": result.skipped,
        "strata": {
            stratum: {"images": int(members.sum()), "opacities": int(opacities[members].sum())}
            for stratum, members in strata.items()
        },
        "methods": {name: _nested(result, name) for name in predictions},
    }
    return report, result.intervals


def _nested(result: BootstrapResult, method: str) -> dict[str, dict[str, dict[str, float]]]:
    """Intervals of a method: stratum, or "against", to measure to value, low and high."""
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for key, interval in result.intervals.items():
        name, stratum, measure = ["", *key.split("/")][-3:]
        if name == method:
            nested.setdefault(stratum, {})[measure] = interval.to_dict()
    return nested

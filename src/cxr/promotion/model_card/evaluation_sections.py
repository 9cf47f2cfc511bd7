"""Sections of a model card that come from the evaluation: figures, threshold, calibration and shortcut checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxr.evaluation.metrics import METRICS
from cxr.models.metadata import ModelMetadata
from cxr.models.prediction_sets import PredictionSets
from cxr.results.formatting import PREDICTION_SET_HEADINGS, SHARE, format_value, markdown_table, measure_heading

FIRST_MEASURES = ("auroc", "average_precision", "sensitivity", "specificity", "precision", "f1", "accuracy", "brier")
MEASURES = (
    *FIRST_MEASURES,
    *(
        name
        for name, metric in METRICS.items()
        if metric.in_summary and metric.kind != "calibration" and name not in FIRST_MEASURES
    ),
)
"""Measures of the model card in its order; the calibration error has a section of its own."""
SUBTYPES = {"bacteria": "bacterial pneumonia", "virus": "viral pneumonia"}
NOT_STATED, NOT_MEASURED = "not stated", "not measured"


def figures_section(metrics: Mapping[str, Any]) -> str:
    """Write the figures on the test images with their intervals, overall and per subtype.

    Args:
        metrics: content of ``metrics.json``.

    Returns:
        Markdown.
    """
    test = split_metrics(metrics, "test")
    measures = test.get("at_threshold", {})
    rows = [[_heading(name), *_cells(name, measures.get(name))] for name in MEASURES if name in measures]
    if not rows:
        return f"The evaluation's figures are {NOT_MEASURED}."
    bootstrap = metrics.get("bootstrap", {})
    interval = f"{100 * bootstrap.get('confidence', 0.95):g} % interval"
    resamples = bootstrap.get("resamples", NOT_STATED)
    explanation = f" Intervals come from {resamples} bootstrap draws of whole patients." if "patients" in test else ""
    lines = [f"{describe_counts(test)}.{explanation}", "", markdown_table(["Measure", "Value", interval], rows)]
    subtypes = test.get("subtypes", {})
    subtype_rows = [
        [SUBTYPES.get(name, name), str(entry.get("images", "")),
         *(with_interval(measure, entry.get(measure)) for measure in ("sensitivity", "auroc"))]
        for name, entry in subtypes.items()
    ]  # fmt: skip
    if subtype_rows:
        lines += [
            f"By subtype, against the same normal images ({interval}s in brackets):",
            "",
            markdown_table(["Subtype", "Images", "Sensitivity", "AUROC"], subtype_rows),
        ]
    else:
        lines.append(f"Figures by subtype (bacterial, viral): {NOT_MEASURED}.")
    sensitivities = [entry["sensitivity"] for entry in subtypes.values() if "sensitivity" in entry]
    if any(entry.get("value") == 1 for entry in [*measures.values(), *sensitivities]):
        lines += ["", "100 % means that none of these few images was mistaken, not that none ever is."]
    return "\n".join(lines).rstrip()


def threshold_section(metadata: ModelMetadata, metrics: Mapping[str, Any]) -> str:
    """Write the threshold, the rule that chose it, and its mistakes on the test images.

    Args:
        metadata: the calibrated metadata.
        metrics: content of ``metrics.json``.

    Returns:
        Markdown.
    """
    text = (
        f"PNEUMONIA at a calibrated probability of {metadata.threshold:.4f} and above, NORMAL below. "
        f"Rule: {metadata.threshold_rule}. Chosen on validation images."
        if metadata.threshold is not None
        else f"{NOT_STATED}."
    )
    confusion = split_metrics(metrics, "test").get("confusion")
    if confusion:
        sick = confusion["true_positives"] + confusion["false_negatives"]
        well = confusion["true_negatives"] + confusion["false_positives"]
        text += (
            f" On test it missed {confusion['false_negatives']} of {sick} images with pneumonia and called "
            f"{confusion['false_positives']} of {well} normal ones PNEUMONIA."
        )
    if metadata.prediction_sets is not None:
        text += " The label of this model does not follow this threshold: see the section Uncertain answers."
    return text


def prediction_sets_section(sets: PredictionSets, metrics: Mapping[str, Any]) -> str:
    """Write when the label is UNCERTAIN, and what that gives on the test images.

    Args:
        sets: prediction sets of the model.
        metrics: content of ``metrics.json``.

    Returns:
        Markdown.
    """
    test = split_metrics(metrics, "test").get("prediction_sets", {})
    lines = [
        f"The label comes from two thresholds of their own. NORMAL fits at a calibrated probability of "
        f"{sets.normal_at_most:.4f} and below, PNEUMONIA at {sets.pneumonia_at_least:.4f} and above. Where both fit, "
        f"or neither, the label is UNCERTAIN. At least {100 * sets.coverage:g} % of the images of each class shall fit "
        "their own class: class-conditional conformal prediction, fitted on "
        f"{sets.normal_images:,} normal validation images and {sets.pneumonia_images:,} with pneumonia. It holds for "
        "images like those of validation.",
        "",
    ]
    rows = [[heading, *_cells(SHARE, test.get(name))] for name, heading in PREDICTION_SET_HEADINGS.items()]
    lines.append(markdown_table(["On test", "Value", "95 % interval"], rows))
    if counts := test.get("counts"):
        lines.append(
            f"UNCERTAIN on test: {counts['both']} images that both classes fit, {counts['none']} that none fits."
        )
    return "\n".join(lines).rstrip()


def calibration_section(metadata: ModelMetadata, metrics: Mapping[str, Any]) -> str:
    """Write the calibration error on the test images before and after calibration.

    Args:
        metadata: the calibrated metadata.
        metrics: content of ``metrics.json``.

    Returns:
        Markdown.
    """
    test = split_metrics(metrics, "test")
    before, after = (
        with_interval("calibration_error", test.get(key, {}).get("calibration_error"))
        for key in ("uncalibrated_at_half", "at_threshold")
    )
    temperature = NOT_STATED if metadata.temperature is None else f"{metadata.temperature:.4f}"
    return (
        f"Temperature {temperature}, fitted on validation images. Calibration error on test: {before} before, {after} "
        f"after ({metrics.get('bins', NOT_STATED)} bins). The probability holds for a share of pneumonia as in the "
        "data set, not for that of a ward or a practice."
    )


def shortcut_section(metrics: Mapping[str, Any]) -> str:
    """Write the two shortcut checks and what they mean.

    Args:
        metrics: content of ``metrics.json``.

    Returns:
        Markdown.
    """
    checks = metrics.get("honesty", {})
    facts, hidden = (checks.get(name, {}).get("auroc") for name in ("metadata", "lungs_hidden"))
    fact_names = ", ".join(checks.get("metadata", {}).get("facts") or ["size in bytes, width, height, mean grey"])
    return "\n".join(
        [
            f"- File facts alone ({fact_names}; no image): AUROC {with_interval('auroc', facts)}.",
            f"- The model with the lungs blacked out: AUROC {with_interval('auroc', hidden)}.",
            "",
            "Both would be near 0.5 if nothing but the lungs told the classes apart. Far above 0.5 means that the "
            "classes also differ in scanner, export or position, and that part of the figures above may come from "
            "that. A low figure with hidden lungs does not prove that the model looks at lungs.",
        ]
    )


def stress_section(metrics: Mapping[str, Any]) -> str:
    """Write the figures on test images that were changed as another way of acquiring them would change them.

    Args:
        metrics: content of ``metrics.json``, with that of ``stress.json`` as the entry ``stress``.

    Returns:
        Markdown.
    """
    test = (metrics.get("stress") or {}).get("test")
    if not test:
        return f"The figures on images that were acquired in another way are {NOT_MEASURED}."
    measures = list(test["mean"])
    titles = {change["key"]: change["title"] for change in test["changes"]}
    entries = {"Unchanged": test["unchanged"], "Mean over the changes": test["mean"]}
    entries |= {change["title"]: change for change in test["changes"]}
    rows = [[title, *(with_interval(name, entry[name]) for name in measures)] for title, entry in entries.items()]
    lowest = "; ".join(
        f"{measure_heading(name)} {_cells(name, test['worst'][name])[0]} "
        f"({titles.get(test['worst'][name]['change'], NOT_STATED)})"
        for name in measures
    )
    return "\n".join(
        [
            f"{describe_counts(test)}, changed in fixed ways that do not change the diagnosis; temperature and "
            f"threshold as above. Lowest: {lowest}.",
            "",
            markdown_table(["Change", *map(measure_heading, measures)], rows),
        ]
    ).rstrip()


def split_metrics(metrics: Mapping[str, Any], split: str) -> Mapping[str, Any]:
    """Take the figures of one split from the metrics.

    Args:
        metrics: content of ``metrics.json``.
        split: ``"validation"`` or ``"test"``.

    Returns:
        Its figures; empty if it was not evaluated.
    """
    figures: Mapping[str, Any] = metrics.get(split) or {}
    return figures


def describe_counts(figures: Mapping[str, Any]) -> str:
    """Count images and patients of a split.

    Args:
        figures: figures of the split.

    Returns:
        For example ``"889 images of 615 patients (254 normal, 635 with pneumonia)"``.
    """
    if "images" not in figures:
        return NOT_STATED
    patients = f" of {figures['patients']:,} patients" if "patients" in figures else ""
    classes = f"{figures['normal']:,} normal, {figures['pneumonia']:,} with pneumonia"
    return f"{figures['images']:,} images{patients} ({classes})"


def _heading(name: str) -> str:
    return "Precision (positive predictive value)" if name == "precision" else measure_heading(name)


def _cells(name: str, entry: Mapping[str, float | None] | None) -> tuple[str, str]:
    """A figure and its interval, in two table cells."""
    value, low, high = ((entry or {}).get(key) for key in ("value", "low", "high"))
    if value is None:
        return NOT_MEASURED, ""
    if low is None or high is None:
        return format_value(name, value), ""
    return format_value(name, value), f"{format_value(name, low).removesuffix(' %')} to {format_value(name, high)}"


def with_interval(name: str, entry: Mapping[str, float | None] | None) -> str:
    """Write a figure with its interval in brackets.

    Args:
        name: name of the measure.
        entry: value, low and high; None if it was not measured.

    Returns:
        For example ``"95.1 % (93.0 to 96.8 %)"``.
    """
    value, interval = _cells(name, entry)
    return f"{value} ({interval})" if interval else value

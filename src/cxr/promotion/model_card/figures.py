"""The part of a model card that comes from the evaluation: figures, threshold, calibration, honesty checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxr.models.metadata import ModelCard
from cxr.results.text import heading, table, value_of

MEASURES = ("auroc", "average_precision", "sensitivity", "specificity", "precision", "f1", "accuracy", "brier")
SUBTYPES = {"bacteria": "bacterial pneumonia", "virus": "viral pneumonia"}
NOT_STATED, NOT_MEASURED = "not stated", "not measured"


def figures(metrics: Mapping[str, Any]) -> str:
    """Write the figures on test with their intervals, overall and per subtype.

    Args:
        metrics: the evaluation's report.

    Returns:
        Markdown.
    """
    test = part(metrics, "test")
    found = test.get("at_threshold", {})
    rows = [[_measure(name), *_cells(name, found.get(name))] for name in MEASURES if name in found]
    if not rows:
        return f"The evaluation's figures are {NOT_MEASURED}."
    drawn = metrics.get("bootstrap", {})
    share = f"{100 * drawn.get('confidence', 0.95):g} % interval"
    lines = [
        f"{counts(test)}. Intervals come from {drawn.get('resamples', NOT_STATED)} bootstrap draws of whole patients."
        if "patients" in test
        else f"{counts(test)}.",
        "",
        table(["Measure", "Value", share], rows),
    ]
    subtypes = test.get("subtypes", {})
    parts = [
        [SUBTYPES.get(name, name), str(entry.get("images", "")), _inline("sensitivity", entry.get("sensitivity")),
         _inline("auroc", entry.get("auroc"))]
        for name, entry in subtypes.items()
    ]  # fmt: skip
    if parts:
        lines += [
            f"By subtype, against the same normal images ({share}s in brackets):",
            "",
            table(["Subtype", "Images", "Sensitivity", "AUROC"], parts),
        ]
    else:
        lines.append(f"Figures by subtype (bacterial, viral): {NOT_MEASURED}.")
    if any(entry.get("value") == 1 for entry in [*found.values(), *_sensitivities(subtypes)]):
        lines += ["", "100 % means that none of these few images was mistaken, not that none ever is."]
    return "\n".join(lines).rstrip()


def _sensitivities(subtypes: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [entry["sensitivity"] for entry in subtypes.values() if "sensitivity" in entry]


def threshold(card: ModelCard, metrics: Mapping[str, Any]) -> str:
    """Say from where an image is called PNEUMONIA, why, and what that does on test.

    Args:
        card: the calibrated card.
        metrics: the evaluation's report.

    Returns:
        Markdown.
    """
    text = (
        f"PNEUMONIA at a calibrated probability of {card.threshold:.4f} and above, NORMAL below. "
        f"Rule: {card.threshold_rule}. Chosen on validation images."
        if card.threshold is not None
        else f"{NOT_STATED}."
    )
    confusion = part(metrics, "test").get("confusion")
    if confusion:
        sick = confusion["true_positives"] + confusion["false_negatives"]
        well = confusion["true_negatives"] + confusion["false_positives"]
        text += (
            f" On test it missed {confusion['false_negatives']} of {sick} images with pneumonia and called "
            f"{confusion['false_positives']} of {well} normal ones PNEUMONIA."
        )
    return text


def calibration(card: ModelCard, metrics: Mapping[str, Any]) -> str:
    """Say how far the probability can be believed, before and after calibration.

    Args:
        card: the calibrated card.
        metrics: the evaluation's report.

    Returns:
        Markdown.
    """
    test = part(metrics, "test")
    before, after = (
        _inline("calibration_error", test.get(key, {}).get("calibration_error"))
        for key in ("uncalibrated_at_half", "at_threshold")
    )
    temperature = NOT_STATED if card.temperature is None else f"{card.temperature:.4f}"
    return (
        f"Temperature {temperature}, fitted on validation images. Calibration error on test: {before} before, {after} "
        f"after ({metrics.get('bins', NOT_STATED)} bins). The probability holds for a share of pneumonia as in the "
        "data set, not for that of a ward or a practice."
    )


def honesty(metrics: Mapping[str, Any]) -> str:
    """Write the two checks beside the AUROC, and what they mean.

    Args:
        metrics: the evaluation's report.

    Returns:
        Markdown.
    """
    checks = metrics.get("honesty", {})
    facts, hidden = (checks.get(name, {}).get("auroc") for name in ("metadata", "lungs_hidden"))
    return "\n".join(
        [
            f"- File facts alone (size, width, height, mean grey, no image): AUROC {_inline('auroc', facts)}.",
            f"- The model with the lungs blacked out: AUROC {_inline('auroc', hidden)}.",
            "",
            "Both would be near 0.5 if nothing but the lungs told the classes apart. Far above 0.5 means that the "
            "classes also differ in scanner, export or position, and that part of the figures above may come from "
            "that. A low figure with hidden lungs does not prove that the model looks at lungs.",
        ]
    )


def part(metrics: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    """Take one split's part of the report.

    Args:
        metrics: the evaluation's report.
        side: ``"validation"`` or ``"test"``.

    Returns:
        Its figures; empty if it was not judged.
    """
    found: Mapping[str, Any] = metrics.get(side) or {}
    return found


def counts(judged: Mapping[str, Any]) -> str:
    """Count images and patients of a split.

    Args:
        judged: figures of the split.

    Returns:
        For example ``"889 images of 615 patients (254 normal, 635 with pneumonia)"``.
    """
    if "images" not in judged:
        return NOT_STATED
    patients = f" of {judged['patients']:,} patients" if "patients" in judged else ""
    return (
        f"{judged['images']:,} images{patients} ({judged['normal']:,} normal, {judged['pneumonia']:,} with pneumonia)"
    )


def _measure(name: str) -> str:
    return "Precision (positive predictive value)" if name == "precision" else heading(name)


def _cells(name: str, entry: Mapping[str, float | None] | None) -> tuple[str, str]:
    """A figure and its interval, in two cells."""
    value, low, high = ((entry or {}).get(key) for key in ("value", "low", "high"))
    if value is None:
        return NOT_MEASURED, ""
    if low is None or high is None:
        return value_of(name, value), ""
    return value_of(name, value), f"{value_of(name, low).removesuffix(' %')} to {value_of(name, high)}"


def _inline(name: str, entry: Mapping[str, float | None] | None) -> str:
    """A figure with its interval in brackets."""
    value, interval = _cells(name, entry)
    return f"{value} ({interval})" if interval else value

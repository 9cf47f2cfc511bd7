"""Sections of a detector's model card that come from its evaluation, and what the detector is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxr.models.metadata import DetectorMetadata, ModelMetadata
from cxr.promotion.model_card.evaluation_sections import NOT_MEASURED, NOT_STATED, split_metrics
from cxr.regions.evaluation import MEASURES, PHANTOM_NOTE
from cxr.regions.image_tables import ALL, WITH_PNEUMONIA
from cxr.results.formatting import markdown_table


def region_figures_section(metrics: Mapping[str, Any]) -> str:
    """Write the figures of the detector and of the methods that it was judged beside, on test images.

    Args:
        metrics: content of ``metrics.json``.

    Returns:
        Markdown.
    """
    test = split_metrics(metrics, "test")
    if "methods" not in test:
        return f"The evaluation's figures are {NOT_MEASURED}."
    rules, bootstrap = metrics["rules"], metrics["bootstrap"]
    titles = {name: method["title"] for name, method in metrics["methods"].items()}
    note = metrics["data"].get("note")
    thresholds = rules["iou_thresholds"]
    return "\n".join(
        [
            f"{describe_region_counts(test)}{f': **{note}**' if note else ''}. In brackets: "
            f"{100 * bootstrap['confidence']:g} % intervals from {bootstrap['resamples']} bootstrap draws of whole "
            "patients.",
            "",
            markdown_table(
                ["Method", *_headings(metrics)],
                [[title, *_cells(test["methods"][name][ALL])] for name, title in titles.items()],
            ),
            "Mean average precision as in the RSNA challenge, over intersections over union of "
            f"{min(thresholds):.2f} to {max(thresholds):.2f}. Sensitivity is per opacity, at an intersection over "
            f"union above {rules['iou_threshold']:g}.",
        ]
    )


def strata_section(metrics: Mapping[str, Any]) -> str:
    """Write the figures of the detector by subtype and difficulty, on test images.

    Args:
        metrics: content of ``metrics.json``.

    Returns:
        Markdown.
    """
    test = split_metrics(metrics, "test")
    counts = {name: entry for name, entry in test.get("strata", {}).items() if name != ALL}
    if not counts:
        return f"Figures by subtype and difficulty: {NOT_MEASURED}."
    figures = test["methods"][next(iter(metrics["methods"]))]
    rows = [
        [name, f"{entry['images']:,}", f"{entry['opacities']:,}", *_cells(figures[name])]
        for name, entry in counts.items()
    ]
    return (
        "Images with pneumonia alone: their mean average precision counts no false positive in a normal image.\n\n"
        + markdown_table(["Stratum", "Images", "Opacities", *_headings(metrics)], rows).rstrip()
    )


def unmarked_section(metrics: Mapping[str, Any]) -> str:
    """Write the figures on images of another data set, whose opacities nobody has marked.

    Args:
        metrics: content of ``metrics.json``.

    Returns:
        Markdown.
    """
    figures = metrics.get("unmarked")
    if not figures:
        return f"Images of another data set: {NOT_MEASURED}."
    kind = PHANTOM_NOTE if figures["data"]["kind"] == "phantom" else "patients"
    return (
        f"{figures['images']:,} test images of {figures['data']['name']} ({kind}), without marked opacities: AUROC of "
        f"the highest score {_with_interval('auroc', figures['auroc'])}; share of the area of all boxes inside the "
        f"lung field {_with_interval('area_in_lungs', figures['area_in_lungs'])}, by chance "
        f"{figures['area_in_lungs_by_chance']:.3f}."
    )


def box_choice_section(metadata: ModelMetadata) -> str:
    """Write which boxes count, how they are scaled, and the rule that chose both.

    Args:
        metadata: metadata of an evaluated detector.

    Returns:
        Markdown.
    """
    scale = metadata.detector.box_scale if metadata.detector is not None else None
    if metadata.threshold is None or scale is None:
        return f"{NOT_STATED}."
    return (
        f"A box counts at a score of {metadata.threshold:.4f} and above. Width and height are multiplied by {scale:g}. "
        f"Rule: {metadata.threshold_rule}. Scores order boxes; they are no calibrated probabilities."
    )


def detector_section(detector: DetectorMetadata) -> str:
    """Write what the detector is.

    Args:
        detector: its part of the metadata.

    Returns:
        Markdown.
    """
    blocks = "with" if detector.squeeze_excitation else "without"
    return "\n".join(
        [
            f"- RetinaNet on {detector.backbone}, {blocks} squeeze-and-excitation blocks",
            f"- Anchors: version `{detector.anchors}`",
            f"- Boxes with a score of at least {detector.min_score:g} are proposed, at most {detector.max_boxes} in an "
            "image",
            f"- Of two boxes with an intersection over union above {detector.max_overlap:g}, only the one with the "
            "higher score stays",
        ]
    )


def describe_region_counts(figures: Mapping[str, Any]) -> str:
    """Count images, patients and opacities of a split.

    Args:
        figures: figures of the split.

    Returns:
        For example ``"90 images of 46 patients (39 normal, 51 with pneumonia, 74 opacities)"``.
    """
    if "images" not in figures:
        return NOT_STATED
    with_pneumonia = figures["strata"].get(WITH_PNEUMONIA, {}).get("images", 0)
    return (
        f"{figures['images']:,} images of {figures['patients']:,} patients ({figures['images'] - with_pneumonia:,} "
        f"normal, {with_pneumonia:,} with pneumonia, {figures['opacities']:,} opacities)"
    )


def _headings(metrics: Mapping[str, Any]) -> list[str]:
    rate = f"{metrics['rules']['false_positives']:g}"
    return [
        f"{title} at {rate} false positives per image" if measure == "sensitivity" else title
        for measure, title in MEASURES.items()
    ]


def _cells(entries: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    return [_with_interval(measure, entries.get(measure) or {}) for measure in MEASURES]


def _with_interval(measure: str, entry: Mapping[str, float | None]) -> str:
    value, low, high = (entry.get(key) for key in ("value", "low", "high"))
    if value is None:
        return NOT_MEASURED
    if measure == "sensitivity":
        text, ends = f"{100 * value:.1f} %", [None if end is None else f"{100 * end:.1f}" for end in (low, high)]
    else:
        text, ends = f"{value:.3f}", [None if end is None else f"{end:.3f}" for end in (low, high)]
    return text if None in ends else f"{text} ({ends[0]} to {ends[1]})"

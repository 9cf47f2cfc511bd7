"""Section of a model card about slices: figures for the images that share a value, such as sex or scanner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxr.evaluation.slices import SLICE_MEASURES, SLICES, describe_too_small, slice_title
from cxr.promotion.model_card.evaluation_sections import split_metrics, with_interval
from cxr.results.formatting import UNKNOWN, markdown_table, measure_heading


def slices_section(metrics: Mapping[str, Any]) -> str:
    """Write the figures of each slice of the test images, the worst one first in words.

    Args:
        metrics: content of ``metrics.json``, with slices.

    Returns:
        Markdown.
    """
    slices, fewest = split_metrics(metrics, "test")[SLICES], metrics[SLICES]["min_patients"]
    lines = [worst_slice_sentence(metrics)]
    if slices["worst"] is not None:
        lines[0] += " The lowest of several figures is low by chance, too: see its interval."
    lines.append(
        f"Test images, threshold as below. A figure needs {fewest} patients of its class: with pneumonia for the "
        "sensitivity, normal ones for the specificity, both for the AUROC. The limits between numbers come from the "
        "validation images."
    )
    rows = [
        [slice_title(entry), f"{entry['images']:,}", f"{entry['patients']:,}",
         *(UNKNOWN if entry[name]["value"] is None else with_interval(name, entry[name]) for name in SLICE_MEASURES)]
        for entry in slices["measured"]
    ]  # fmt: skip
    if rows:
        lines += ["", markdown_table(["Slice", "Images", "Patients", *map(measure_heading, SLICE_MEASURES)], rows)]
    if slices["too_small"]:
        lines.append(f"Too small for figures: {describe_too_small(slices['too_small'])}.")
    return "\n".join(lines).rstrip()


def worst_slice_sentence(metrics: Mapping[str, Any]) -> str:
    """Name the slice of the test images with the lowest sensitivity.

    Args:
        metrics: content of ``metrics.json``, with slices.

    Returns:
        A sentence; it says so if all slices are too small.
    """
    worst = split_metrics(metrics, "test")[SLICES]["worst"]
    if worst is None:
        fewest = metrics[SLICES]["min_patients"]
        return f"No slice has the {fewest} patients with pneumonia that its sensitivity needs."
    return f"Lowest sensitivity of a slice: {with_interval('sensitivity', worst['sensitivity'])}, {slice_title(worst)}."

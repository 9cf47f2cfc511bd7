"""The tables of a section: one row per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxr.evaluation.metrics import METRICS
from cxr.evaluation.slices import SLICES, slice_title
from cxr.results.formatting import (
    PREDICTION_SET_HEADINGS,
    SHARE,
    UNKNOWN,
    format_commit,
    format_interval,
    format_known,
    format_measure,
    format_number,
    format_value,
    markdown_table,
    measure_heading,
)
from cxr.results.model_result import ModelResult

THRESHOLD_MEASURES = ("sensitivity", "specificity", "accuracy")
"""Measures of the first table; the next one has all others of the summary."""
METADATA_BASELINE = "metadata baseline"


def metadata_baseline(models: Sequence[ModelResult]) -> Mapping[str, Any]:
    """Return the metadata baseline, which is the same for all models of a split.

    Args:
        models: results of one data set and split.

    Returns:
        ``facts``, and ``auroc`` with value, low and high; empty if none of the models has it.
    """
    checks = [check for result in models if (check := result.shortcut_check("metadata"))]
    # Results that were kept earlier may come from a baseline that saw fewer facts.
    return max(checks, key=lambda check: len(check.get("facts", ())), default={})


def threshold_table(models: Sequence[ModelResult]) -> str:
    """Compare models at the threshold chosen on validation, with the two shortcut checks.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table; the last row is the metadata baseline.
    """
    measures = THRESHOLD_MEASURES
    rows = []
    for result in models:
        entries, hidden = result.test["at_threshold"], result.shortcut_check("lungs_hidden")
        rows.append(
            [
                f"**{result.model}**",
                format_number(result.validation_auroc, 4),
                format_measure("auroc", entries),
                format_measure("auroc", hidden),
                format_number(hidden.get("drop", {}).get("value"), 4),
                *(format_measure(measure, entries) for measure in measures),
                format_number(result.facts["threshold"], 3),
            ]
        )
    baseline_auroc = format_measure("auroc", metadata_baseline(models))
    rows.append([METADATA_BASELINE, UNKNOWN, baseline_auroc, *[UNKNOWN] * (len(measures) + 3)])
    headings = ["Validation AUROC", "AUROC", "AUROC, lungs hidden", "Drop", *map(measure_heading, measures)]
    return markdown_table(["Model", *headings, "Threshold"], rows)


def further_measures_table(models: Sequence[ModelResult]) -> str:
    """Write further measures at that threshold, and the calibration.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table.
    """
    shown = ("auroc", *THRESHOLD_MEASURES)
    measures = [name for name, metric in METRICS.items() if metric.in_summary and name not in shown]
    rows = [
        [
            f"**{result.model}**",
            *(format_measure(measure, result.test["at_threshold"]) for measure in measures),
            format_number(result.test["uncalibrated_at_half"]["calibration_error"]["value"], 3),
            format_number(result.facts["temperature"], 2),
        ]
        for result in models
    ]
    headings = [*map(measure_heading, measures), "Calibration error, uncalibrated", "Temperature"]
    return markdown_table(["Model", *headings], rows)


def prediction_sets_table(models: Sequence[ModelResult]) -> str:
    """Write the thresholds of the prediction sets, and coverage and uncertain answers on test.

    Args:
        models: results of one data set and split, with prediction sets.

    Returns:
        A Markdown table.
    """
    rows = []
    for result in models:
        sets, test = result.facts["metrics"]["prediction_sets"], result.test["prediction_sets"]
        thresholds = (format_number(sets[name], 3) for name in ("normal_at_most", "pneumonia_at_least"))
        figures = (format_interval(SHARE, test[name]) for name in PREDICTION_SET_HEADINGS)
        rows.append([f"**{result.model}**", format_value(SHARE, sets["coverage"]), *thresholds, *figures])
    headings = ["Model", "Wanted coverage", "NORMAL at most", "PNEUMONIA at least", *PREDICTION_SET_HEADINGS.values()]
    return markdown_table(headings, rows)


def subtypes_table(models: Sequence[ModelResult]) -> str:
    """Write AUROC and sensitivity for each kind of pneumonia.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table.
    """
    kinds = sorted({kind for result in models for kind in result.test["subtypes"]})
    columns = [(kind, measure) for kind in kinds for measure in ("auroc", "sensitivity")]
    rows = [
        [
            f"**{result.model}**",
            *(format_measure(name, result.test["subtypes"].get(kind, {})) for kind, name in columns),
        ]
        for result in models
    ]
    headings = [f"{kind}: {measure_heading(measure)}" for kind, measure in columns]
    return markdown_table(["Model", *headings], rows) + "\nEach kind against all normal images.\n"


def worst_slices_table(models: Sequence[ModelResult]) -> str:
    """Write the slice with the lowest sensitivity of each model.

    Args:
        models: results of one data set and split, with slices.

    Returns:
        A Markdown table.
    """
    rows = []
    for result in models:
        worst = result.test[SLICES]["worst"]
        cells = [UNKNOWN] * 4
        if worst is not None:
            counts = (f"{worst[key]:,}" for key in ("images", "patients"))
            cells = [slice_title(worst), *counts, format_interval("sensitivity", worst["sensitivity"])]
        rows.append([f"**{result.model}**", *cells])
    return markdown_table(["Model", "Worst slice", "Images", "Patients", "Its sensitivity"], rows)


def slices_table(models: Sequence[ModelResult], measure: str) -> str:
    """Write one measure of each slice, one column per model.

    Args:
        models: results of one data set and split, with slices.
        measure: one of :data:`cxr.evaluation.slices.SLICE_MEASURES`.

    Returns:
        A Markdown table; a slice that a model was not measured in is a dash, and one that no model was measured in is
        left out. Empty if there is no slice.
    """
    by_model = [{slice_title(entry): entry for entry in result.test[SLICES]["measured"]} for result in models]
    slices = {
        title: entry for entries in by_model for title, entry in entries.items() if entry[measure]["value"] is not None
    }
    rows = [
        [
            title,
            f"{entry['images']:,}",
            f"{entry['patients']:,}",
            *(format_measure(measure, entries.get(title, {})) for entries in by_model),
        ]
        for title, entry in slices.items()
    ]
    headings = [f"{measure_heading(measure)}, slice", "Images", "Patients"]
    return markdown_table([*headings, *(f"**{result.model}**" for result in models)], rows) if rows else ""


def operating_points_table(models: Sequence[ModelResult]) -> str:
    """Write the specificity at further sensitivities.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table, or a sentence if there is nothing to show.
    """
    rows = [
        [
            f"**{result.model}**",
            format_value("sensitivity", point["wanted_sensitivity"], 2),
            format_number(point["threshold"], 3),
            format_interval("sensitivity", point["sensitivity"], 2),
            format_interval("specificity", point["specificity"], 2),
        ]
        for result in models
        for point in result.test["further_points"]
    ]
    if not rows:
        return "No further sensitivities were requested.\n"
    headings = ["Model", "Target on validation", "Threshold", "Sensitivity on test", "Specificity on test"]
    return markdown_table(headings, rows)


def stress_summary_table(models: Sequence[ModelResult]) -> str:
    """Compare models under the changes of the stress test: the mean over the changes, and the lowest figure.

    Args:
        models: results of one data set and split, with a stress test.

    Returns:
        A Markdown table.
    """
    measures = list(models[0].stress["test"]["mean"])
    rows = []
    for result in models:
        validation, test = result.stress["validation"], result.stress["test"]
        titles = {change["key"]: change["title"] for change in test["changes"]}
        cells = [f"**{result.model}**", format_measure("auroc", validation["mean"])]
        for measure in measures:
            lowest = test["worst"][measure]
            cells += [format_measure(measure, test[entry]) for entry in ("unchanged", "mean")]
            cells.append(f"{format_interval(measure, lowest)}<br>{titles.get(lowest['change'], UNKNOWN)}")
        rows.append(cells)
    headings = [
        f"{measure_heading(measure)}, {column}" for measure in measures for column in ("unchanged", "mean", "lowest")
    ]
    return markdown_table(["Model", "Validation AUROC, mean", *headings], rows)


def stress_changes_table(models: Sequence[ModelResult]) -> str:
    """Write the AUROC on test under each change of the stress test, one column per model.

    Args:
        models: results of one data set and split, with a stress test.

    Returns:
        A Markdown table; a change that a model was not measured under is a dash.
    """
    by_model = [
        {change["title"]: change["auroc"]["value"] for change in result.stress["test"]["changes"]} for result in models
    ]
    titles = dict.fromkeys(title for aurocs in by_model for title in aurocs)
    rows = [[title, *(format_number(aurocs.get(title), 4) for aurocs in by_model)] for title in titles]
    return markdown_table(["AUROC on test", *(f"**{result.model}**" for result in models)], rows)


def training_table(models: Sequence[ModelResult]) -> str:
    """Write how the models were trained, and their speed.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table.
    """
    rows = []
    for result in models:
        facts, training = result.facts, result.facts["training"]
        device = training.get("device") or {}
        rows.append(
            [
                f"**{result.model}**",
                format_known(facts["system"]),
                _initial_weights(result),
                format_known(facts["seed"]),
                " x ".join(str(size) for size in facts["input_shape"] or ()) or UNKNOWN,
                format_known(facts["parameters"], "{:,}".format),
                format_known(training.get("train_images"), "{:,}".format),
                f"{format_known(training.get('best_epoch'))} of {format_known(training.get('epochs_run'))}",
                format_known(training.get("seconds"), lambda seconds: f"{seconds / 60:.1f}"),
                format_known(training.get("images_per_second"), "{:,.0f}".format),
                f"{format_known(device.get('name'))} ({format_known(device.get('framework'))})",
                _prediction_speed(result, device.get("name")),
                format_commit(facts["git_commit"]),
            ]
        )
    headings = [
        "Model", "System", "Initial weights", "Seed", "Input", "Parameters", "Training images", "Best epoch",
        "Minutes of training", "Images/s in training", "Device of training", "Images/s at prediction", "Commit",
    ]  # fmt: skip
    return markdown_table(headings, rows)


def _initial_weights(result: ModelResult) -> str:
    if result.facts.get("members"):
        return UNKNOWN
    weights = str(result.facts["settings"].get("weights", "none"))
    return {"none": "random", "imagenet": "ImageNet"}.get(weights, "a weights file")


def _prediction_speed(result: ModelResult, training_device: str | None) -> str:
    speed = result.facts["metrics"].get("speed") or {}
    rate = format_known(speed.get("images_per_second"), "{:,.0f}".format)
    device = (speed.get("device") or {}).get("name")
    return rate if device in (None, training_device) else f"{rate}<br>{device}"

"""The tables of a section: one row per model, with what others report beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cxr.evaluation.metrics import METRICS
from cxr.results.formatting import (
    UNKNOWN,
    format_commit,
    format_difference,
    format_interval,
    format_known,
    format_measure,
    format_number,
    format_reported,
    format_value,
    markdown_table,
    measure_heading,
)
from cxr.results.model_result import ModelResult
from cxr.results.reported_results import PUBLISHED, SOURCE_SYSTEMS, PerformanceTarget, ReportedResult

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


def reported_results_table(models: Sequence[ModelResult], protocol: str) -> str:
    """Write measures at 0.5 without calibration, beside those of the source systems and published ones.

    Args:
        models: results of one data set and split.
        protocol: its split protocol. Results of others appear only beside results of the same protocol.

    Returns:
        A Markdown table.
    """
    measures = ("auroc", "accuracy", "sensitivity", "specificity", "precision", "f1", "log_loss")
    rows = []
    for result in models:
        entries = {**result.test["uncalibrated_at_half"], "auroc": result.test["at_threshold"]["auroc"]}
        source = _source_system(result, protocol)
        differences = _format_differences(entries, source) if source else ""
        rows.append([f"**{result.model}**", *(format_measure(measure, entries) for measure in measures), differences])
        if source:
            rows.append(_reported_row(source, measures))
    if not models[0].phantom:
        rows += [_reported_row(reported, measures) for reported in PUBLISHED if protocol in reported.protocols]
    return markdown_table(["Model", *map(measure_heading, measures), "Against its source; setting"], rows)


def _source_system(result: ModelResult, protocol: str) -> ReportedResult | None:
    if result.phantom:
        return None
    matches = (
        system
        for system in SOURCE_SYSTEMS
        if system.architecture == result.architecture and protocol in system.protocols
    )
    return next(matches, None)


def _reported_row(reported: ReportedResult, measures: Sequence[str]) -> list[str]:
    values = [
        f"*{format_reported(measure, reported.measures[measure])}*" if measure in reported.measures else UNKNOWN
        for measure in measures
    ]
    return [f"*{reported.title}*", *values, f"*{reported.setting} ({reported.citation})*"]


def _format_differences(entries: Mapping[str, Any], source: ReportedResult) -> str:
    differences = []
    for measure, reported_value in source.measures.items():
        value = entries.get(measure, {}).get("value")
        if value is not None and measure not in source.at_other_threshold:
            differences.append(f"{measure_heading(measure)} {format_difference(measure, value - reported_value)}")
    return "; ".join(differences)


def targets_table(models: Sequence[ModelResult], targets: Sequence[PerformanceTarget]) -> str:
    """Write the targets, and whether the models reach them.

    Args:
        models: results of one data set and split, the best on validation first.
        targets: the targets.

    Returns:
        A Markdown table.
    """
    return markdown_table(
        ["Target", "Minimum", "Model", "Reached", "Result"], [_target_row(models, target) for target in targets]
    )


def _target_row(models: Sequence[ModelResult], target: PerformanceTarget) -> list[str]:
    minimum = format_reported(target.measure, target.minimum)
    result = next((result for result in models if target.architecture in (None, result.architecture)), None)
    if result is None:
        return [target.title, minimum, UNKNOWN, UNKNOWN, "not run"]
    entry = _target_entry(result.test, target)
    if entry is None or entry["value"] is None:
        return [target.title, minimum, f"**{result.model}**", UNKNOWN, "not measured"]
    difference = entry["value"] - target.minimum
    verdict = "above" if difference > 0 else "met" if difference == 0 else "**below**"
    verdict += f" ({format_difference(target.measure, difference)})"
    return [target.title, minimum, f"**{result.model}**", format_interval(target.measure, entry, 2), verdict]


def _target_entry(test: Mapping[str, Any], target: PerformanceTarget) -> Mapping[str, Any] | None:
    """Value and interval of a target's measure on test."""
    if target.entry != "further_points":
        entry: Mapping[str, Any] = test[target.entry][target.measure]
        return entry
    points = (point for point in test["further_points"] if math.isclose(point["wanted_sensitivity"], target.minimum))
    return next((point[target.measure] for point in points), None)


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
        "Model", "System", "Initial weights", "Input", "Parameters", "Training images", "Best epoch",
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

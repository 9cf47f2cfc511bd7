"""The tables of a section that hold our models against results of others, and against the targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cxr.results.formatting import (
    UNKNOWN,
    format_difference,
    format_interval,
    format_measure,
    format_reported,
    format_value,
    markdown_table,
    measure_heading,
)
from cxr.results.model_result import ModelResult
from cxr.results.repeated_trainings import mean_at_threshold, repeated_trainings
from cxr.results.reported_results import PUBLISHED, SOURCE_SYSTEMS, PerformanceTarget, ReportedResult


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
    return [f"*{reported.title}*", *values, f"*{_source(reported)}*"]


def _source(reported: ReportedResult) -> str:
    return f"{reported.setting} ({reported.citation})"


def _format_differences(entries: Mapping[str, Any], source: ReportedResult) -> str:
    differences = []
    for measure, reported_value in source.measures.items():
        value = entries.get(measure, {}).get("value")
        if value is not None and measure not in source.at_other_threshold:
            differences.append(f"{measure_heading(measure)} {format_difference(measure, value - reported_value)}")
    return "; ".join(differences)


def selected_on_test_table(models: Sequence[ModelResult], protocol: str) -> str:
    """Write the highest accuracy that any threshold reaches on test, beside reported accuracies selected on test.

    Args:
        models: results of one data set and split.
        protocol: its split protocol.

    Returns:
        A Markdown table; empty if no model has this measure, which earlier evaluations lack.
    """
    key = "oracle_accuracy"
    if not any(key in result.test["at_threshold"] for result in models):
        return ""
    rows = []
    for result in models:
        entries = result.test["at_threshold"]
        highest = entries.get(key, {}).get("value")
        rows.append(
            [
                f"**{result.model}**",
                format_measure("accuracy", entries),
                UNKNOWN if highest is None else format_value(key, highest),
                "the highest of any threshold",
            ]
        )
    for reported in SOURCE_SYSTEMS:
        if reported.selected_on_test and protocol in reported.protocols and "accuracy" in reported.measures:
            accuracy = format_reported("accuracy", reported.measures["accuracy"])
            rows.append([f"*{reported.title}*", UNKNOWN, f"*{accuracy}*", f"*{_source(reported)}*"])
    return markdown_table(["Model", "Accuracy, threshold of validation", "Accuracy, selected on test", "Setting"], rows)


def targets_table(models: Sequence[ModelResult], targets: Sequence[PerformanceTarget]) -> str:
    """Write the targets, and whether the models reach them.

    Args:
        models: results of one data set and split, the best on validation first.
        targets: the targets.

    Returns:
        A Markdown table.
    """
    return markdown_table(
        ["Target", "Bound", "Model", "Reached", "Result"], [_target_row(models, target) for target in targets]
    )


def _target_row(models: Sequence[ModelResult], target: PerformanceTarget) -> list[str]:
    bound = f"at {'most' if target.is_maximum else 'least'} {format_reported(target.measure, target.bound)}"
    name, entry = _mean_of_trainings(models, target) if target.over_trainings else _best_model(models, target)
    if not name:
        return [target.title, bound, UNKNOWN, UNKNOWN, "not run"]
    if entry is None or entry["value"] is None:
        return [target.title, bound, name, UNKNOWN, "not measured"]
    difference = entry["value"] - target.bound
    is_reached = difference <= 0 if target.is_maximum else difference >= 0
    verdict = f"{'reached' if is_reached else '**missed**'} ({format_difference(target.measure, difference)})"
    return [target.title, bound, name, format_interval(target.measure, entry, 2), verdict]


def _best_model(models: Sequence[ModelResult], target: PerformanceTarget) -> tuple[str, Mapping[str, Any] | None]:
    """Name of the first model that a target applies to, and its value and interval; an empty name without one."""
    result = next((result for result in models if target.architecture in (None, result.architecture)), None)
    return ("", None) if result is None else (f"**{result.model}**", _target_entry(result.test, target))


def _mean_of_trainings(
    models: Sequence[ModelResult], target: PerformanceTarget
) -> tuple[str, Mapping[str, Any] | None]:
    """The same for the mean over the trainings of a network, which has no interval."""
    trainings = next(iter(repeated_trainings(models)), None)
    if trainings is None:
        return "", None
    mean = mean_at_threshold(trainings, target.measure)
    name = f"**{trainings[0].architecture}**, {len(trainings)} trainings"
    return name, {"value": mean, "low": None, "high": None}


def _target_entry(test: Mapping[str, Any], target: PerformanceTarget) -> Mapping[str, Any] | None:
    """Value and interval of a target's measure on test."""
    if target.entry != "further_points":
        entry: Mapping[str, Any] = test[target.entry][target.measure]
        return entry
    points = (point for point in test["further_points"] if math.isclose(point["wanted_sensitivity"], target.bound))
    return next((point[target.measure] for point in points), None)

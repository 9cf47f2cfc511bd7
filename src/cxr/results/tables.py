"""The tables of a section: one row per model, kept figures beside those of others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cxr.results.result import Result
from cxr.results.source_figures import PUBLISHED, SOURCES, Bar, Figure
from cxr.results.text import (
    UNKNOWN,
    commit_of,
    difference,
    entry_of,
    heading,
    interval,
    number,
    or_unknown,
    stated,
    table,
    value_of,
)

BASELINE = "file facts alone"


def chosen(models: Sequence[Result]) -> str:
    """Compare models at the threshold chosen on validation, with the two checks of their AUROC.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table, with a row for the classifier that sees no image.
    """
    measures = ("sensitivity", "specificity", "accuracy")
    rows = []
    for one in models:
        figures = one.facts["metrics"]["test"]["at_threshold"]
        hidden = check(one, "lungs_hidden")
        drop = hidden.get("drop", {}).get("value")
        rows.append(
            [
                f"**{one.model}**",
                number(one.validation_auroc, 4),
                entry_of("auroc", figures),
                entry_of("auroc", hidden),
                or_unknown(drop, lambda value: number(value, 4)),
                *(entry_of(name, figures) for name in measures),
                or_unknown(one.facts["threshold"], lambda value: number(value, 3)),
            ]
        )
    baseline = next((found for one in models if (found := check(one, "metadata"))), {})
    rows.append([BASELINE, UNKNOWN, entry_of("auroc", baseline), *[UNKNOWN] * (len(measures) + 3)])
    names = ["Validation AUROC", "AUROC", "AUROC, lungs hidden", "Drop", *(heading(name) for name in measures)]
    return table(["Model", *names, "Threshold"], rows)


def check(result: Result, name: str) -> Mapping[str, Any]:
    """Find one of the two checks of a result.

    Args:
        result: a kept result.
        name: ``metadata`` or ``lungs_hidden``.

    Returns:
        What was measured; empty if it was not.
    """
    found = (result.facts["metrics"].get("honesty") or {}).get(name)
    return found or {}


def further(models: Sequence[Result]) -> str:
    """Further figures at that threshold, and the calibration.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table.
    """
    measures = ("average_precision", "precision", "f1", "brier", "calibration_error")
    rows = []
    for one in models:
        test = one.facts["metrics"]["test"]
        before = test["uncalibrated_at_half"]["calibration_error"]["value"]
        rows.append(
            [
                f"**{one.model}**",
                *(entry_of(name, test["at_threshold"]) for name in measures),
                number(before, 3),
                or_unknown(one.facts["temperature"], lambda value: number(value, 2)),
            ]
        )
    names = [heading(name) for name in measures]
    return table(["Model", *names, "Calibration error, uncalibrated", "Temperature"], rows)


def beside(models: Sequence[Result], protocol: str) -> str:
    """Figures at 0.5 without calibration, beside those of the source systems and published ones.

    Args:
        models: results of one data set and split.
        protocol: its split protocol; figures of others stand only beside their own.

    Returns:
        A Markdown table.
    """
    measures = ("auroc", "accuracy", "sensitivity", "specificity", "precision", "f1", "log_loss")
    rows = []
    for one in models:
        test = one.facts["metrics"]["test"]
        figures = {**test["uncalibrated_at_half"], "auroc": test["at_threshold"]["auroc"]}
        source = _source(one, protocol)
        against = _against(figures, source) if source else ""
        rows.append([f"**{one.model}**", *(entry_of(name, figures) for name in measures), against])
        if source:
            rows.append(_quoted(source, measures))
    rows += [
        _quoted(figure, measures) for figure in PUBLISHED if protocol in figure.protocols and not models[0].phantom
    ]
    return table(["Model", *(heading(name) for name in measures), "Against its source; setting"], rows)


def _quoted(figure: Figure, measures: Sequence[str]) -> list[str]:
    values = [f"*{stated(name, figure.measures[name])}*" if name in figure.measures else UNKNOWN for name in measures]
    return [f"*{figure.title}*", *values, f"*{figure.setting} ({figure.citation})*"]


def _against(figures: Mapping[str, Any], source: Figure) -> str:
    words = []
    for name, theirs in source.measures.items():
        ours = figures.get(name, {}).get("value")
        if ours is not None and name not in source.apart:
            words.append(f"{heading(name)} {difference(name, ours - theirs)}")
    return "; ".join(words)


def bars(models: Sequence[Result], wanted: Sequence[Bar]) -> str:
    """What models have to reach or aim at, and whether they do.

    Args:
        models: results of one data set and split, the best on validation first.
        wanted: figures to reach.

    Returns:
        A Markdown table.
    """
    rows = []
    for bar in wanted:
        asked = [one for one in models if bar.architecture in (None, architecture(one))]
        least = stated(bar.measure, bar.wanted)
        if not asked:
            rows.append([bar.title, least, UNKNOWN, UNKNOWN, "not run"])
            continue
        entry = _bar_entry(asked[0].facts["metrics"]["test"], bar)
        if entry is None or entry["value"] is None:
            rows.append([bar.title, least, f"**{asked[0].model}**", UNKNOWN, "not measured"])
            continue
        gap = entry["value"] - bar.wanted
        verdict = f"{'above' if gap > 0 else 'met' if gap == 0 else '**below**'} ({difference(bar.measure, gap)})"
        rows.append([bar.title, least, f"**{asked[0].model}**", interval(bar.measure, entry, 2), verdict])
    return table(["Bar", "Wanted", "Model", "Reached", "Result"], rows)


def _bar_entry(test: Mapping[str, Any], bar: Bar) -> dict[str, Any] | None:
    if bar.entry != "further_points":
        return dict(test[bar.entry][bar.measure])
    points = (one for one in test["further_points"] if math.isclose(one["wanted_sensitivity"], bar.wanted))
    return next((dict(point[bar.measure]) for point in points), None)


def subtypes(models: Sequence[Result]) -> str:
    """Figures by kind of pneumonia.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table.
    """
    kinds = sorted({kind for one in models for kind in one.facts["metrics"]["test"]["subtypes"]})
    headings = [f"{kind}: {heading(name)}" for kind in kinds for name in ("auroc", "sensitivity")]
    rows = []
    for one in models:
        subtypes = one.facts["metrics"]["test"]["subtypes"]
        cells = [
            entry_of(name, subtypes[kind]) if kind in subtypes else UNKNOWN
            for kind in kinds
            for name in ("auroc", "sensitivity")
        ]
        rows.append([f"**{one.model}**", *cells])
    return table(["Model", *headings], rows) + "\nEach kind against all normal images.\n"


def points(models: Sequence[Result]) -> str:
    """Specificity at further sensitivities.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table, or a sentence if there is nothing to show.
    """
    rows = [
        [
            f"**{one.model}**",
            value_of("sensitivity", point["wanted_sensitivity"], 2),
            number(point["threshold"], 3),
            interval("sensitivity", point["sensitivity"], 2),
            interval("specificity", point["specificity"], 2),
        ]
        for one in models
        for point in one.facts["metrics"]["test"]["further_points"]
    ]
    if not rows:
        return "None were asked for.\n"
    headings = ["Model", "Wanted on validation", "Threshold", "Sensitivity on test", "Specificity on test"]
    return table(headings, rows)


def training(models: Sequence[Result]) -> str:
    """How the models were trained, and how fast they are.

    Args:
        models: results of one data set and split.

    Returns:
        A Markdown table.
    """
    rows = []
    for one in models:
        facts, evidence = one.facts, one.facts["training"]
        device = evidence.get("device") or {}
        rows.append(
            [
                f"**{one.model}**",
                or_unknown(facts["system"]),
                _start(one),
                " x ".join(str(size) for size in facts["input_shape"] or ()) or UNKNOWN,
                or_unknown(facts["parameters"], lambda count: f"{count:,}"),
                or_unknown(evidence.get("train_images"), lambda count: f"{count:,}"),
                f"{or_unknown(evidence.get('best_epoch'))} of {or_unknown(evidence.get('epochs_run'))}",
                or_unknown(evidence.get("seconds"), lambda seconds: f"{seconds / 60:.1f}"),
                or_unknown(evidence.get("images_per_second"), lambda rate: f"{rate:,.0f}"),
                f"{or_unknown(device.get('name'))} ({or_unknown(device.get('framework'))})",
                _prediction_speed(one, device.get("name")),
                commit_of(facts["git_commit"]),
            ]
        )
    headings = [
        "Model", "System", "Starts from", "Input", "Parameters", "Training images", "Best epoch", "Minutes of training",
        "Images/s in training", "Device of training", "Images/s at prediction", "Commit",
    ]  # fmt: skip
    return table(headings, rows)


def _start(result: Result) -> str:
    """What the weights were before training."""
    if result.facts.get("members"):
        return UNKNOWN
    weights = result.facts["settings"].get("weights", "none")
    return {"none": "its seed", "imagenet": "ImageNet"}.get(str(weights), "a weights file")


def _prediction_speed(result: Result, trained_on: str | None) -> str:
    speed = result.facts["metrics"].get("speed") or {}
    rate = or_unknown(speed.get("images_per_second"), lambda value: f"{value:,.0f}")
    device = (speed.get("device") or {}).get("name")
    return rate if device in (None, trained_on) else f"{rate}<br>{device}"


def architecture(result: Result) -> str | None:
    """Network of a result.

    Args:
        result: a kept result.

    Returns:
        Its name as in the training parameters, or None if they were not kept.
    """
    found = result.facts["settings"].get("architecture")
    return None if found is None else str(found)


def _source(result: Result, protocol: str) -> Figure | None:
    if result.phantom:
        return None
    wanted = architecture(result)
    matching = (one for one in SOURCES if one.architecture == wanted and protocol in one.protocols)
    return next(matching, None)

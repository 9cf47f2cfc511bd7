"""The folder of a judgement: figures, predictions, curves and plots as an evaluation has them, and a page to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import CLASSES, NORMAL, PNEUMONIA, DatasetCard
from cxr.data.label_table import ImageLabels, describe_unknown
from cxr.data.manifest.builder import content_digest
from cxr.data.split_table import TEST
from cxr.drift.plots import plot_distances
from cxr.drift.window_comparison import WindowComparison
from cxr.evaluation.files import write_curves
from cxr.evaluation.metrics import METRICS
from cxr.evaluation.mistakes import worst_mistakes
from cxr.evaluation.slices import SLICES
from cxr.external_validation.figures import PATIENT, Judgement
from cxr.external_validation.predictions import count_errors, count_warnings
from cxr.external_validation.slices import describe_slices
from cxr.files import (
    JUDGEMENT_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    SUMMARY_FILE,
    printable_name,
    without_nan,
    write_json,
    write_text,
)
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import record_digests
from cxr.plots.classification import plot_calibration, plot_confusion, plot_precision_recall, plot_roc
from cxr.plots.scores import plot_mistakes, plot_scores
from cxr.plots.style import Caption, save_png
from cxr.results.formatting import (
    SHARE,
    UNKNOWN,
    format_interval,
    format_measure,
    format_share,
    format_value,
    markdown_table,
    measure_heading,
)
from cxr.results.judgements import ALL, ANSWERED, JUDGED_MODEL_FIELDS, WORST_SLICE, describe_source
from cxr.tables import write_table

PLOTS_FOLDER = "plots"


@dataclass(frozen=True)
class JudgementContext:
    """What was judged, and on what.

    Attributes:
        metadata: metadata of the model, with its threshold.
        version: number of the version; None for a model of a folder.
        alias: alias by which it was found; None if by none.
        card: name and kind of the data set.
        labels: which images have a known class, and how many have none.
        files_left_out: reason to number of the files that are no images.
        own_test: measure to value on the version's own test images; empty if unknown.
        unit: :data:`cxr.external_validation.figures.PATIENT` or its alternative.
    """

    metadata: ModelMetadata
    version: str | None
    alias: str | None
    card: DatasetCard
    labels: ImageLabels
    files_left_out: Mapping[str, int]
    own_test: Mapping[str, float]
    unit: str


def write_judgement_folder(
    folder: Path,
    judgement: Judgement,
    rows: pd.DataFrame,
    comparison: WindowComparison | None,
    context: JudgementContext,
    *,
    mistakes: int,
    read_grey: Callable[[str], NDArray[np.uint8]],
) -> None:
    """Write everything about a judgement; the digests of all files come last.

    Args:
        folder: where to write; must exist.
        judgement: the figures.
        rows: what :func:`cxr.external_validation.predictions.predict_labelled_images` returned.
        comparison: the distance from training; None if it is unknown.
        context: what was judged.
        mistakes: most images of each kind of mistake.
        read_grey: from the path of an image to its pixels, ``(height, width)`` uint8.
    """
    metadata = context.metadata
    threshold = float(metadata.threshold or 0)
    answered = rows[(rows["error"] == "") & rows["refusal"].isna()].assign(split=TEST)
    sheet = worst_mistakes(answered, threshold, mistakes)
    report = _report(judgement, rows, comparison, context)
    write_json(folder / METRICS_FILE, report)
    write_json(folder / SUMMARY_FILE, summarize(report))
    write_table(folder / PREDICTIONS_FILE, rows.drop(columns="embedding"))
    write_curves(folder, judgement.curves)
    _write_plots(folder / PLOTS_FOLDER, judgement, answered, sheet, comparison, context, read_grey)
    write_text(folder / JUDGEMENT_FILE, _page(without_nan(report), sheet, context))
    record_digests(folder)


def summarize(report: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what a model card and a tracking server show.

    Args:
        report: content of ``metrics.json``.

    Returns:
        :data:`cxr.results.judgements.JUDGED_MODEL_FIELDS` of the model; ``data`` (name), ``kind``, ``source`` and
        ``digest`` of the judged set; ``images`` (those with a known class), their number in each of the ``classes``,
        and ``patients`` (None if unknown); ``refusals``, ``distance`` (a sentence; None if unknown) and ``notes``; the
        measures of both entries; and, if slices are wanted, the worst one of the images that get an answer.
    """
    entry = report[ALL]
    shown = [name for name, metric in METRICS.items() if metric.in_summary]
    return {
        **{name: report[name] for name in JUDGED_MODEL_FIELDS},
        "data": report["data"]["name"],
        **{name: report["data"][name] for name in ("kind", "source", "digest")},
        "images": sum(report["labels"]["known"].values()),
        "classes": report["labels"]["known"],
        "patients": entry.get("patients"),
        "refusals": report["refusals"],
        "distance": None if report["distance"] is None else report["distance"]["sentence"],
        "notes": report["notes"],
        **{
            name: None if report[name] is None else {
                measure: value for measure, value in report[name]["at_threshold"].items() if measure in shown
            }
            for name in (ANSWERED, ALL)
        },
        **({WORST_SLICE: (report[ANSWERED] or {SLICES: {"worst": None}})[SLICES]["worst"]} if SLICES in report else {}),
    }  # fmt: skip


def _report(
    judgement: Judgement, rows: pd.DataFrame, comparison: WindowComparison | None, context: JudgementContext
) -> dict[str, Any]:
    metadata, labels, card = context.metadata, context.labels, context.card
    notes = [*judgement.notes]
    without_patient = sum(image.patient is None for image in labels.images)
    if context.unit == PATIENT and without_patient:
        notes.append(f"{without_patient:,} images without a patient count as a patient each")
    contents = rows.dropna(subset="sha256").groupby("sha256")["label"]
    copies, contradictions = int((contents.size() - 1).sum()), int((contents.nunique() > 1).sum())
    if copies:
        notes.append(f"{copies:,} images have the same content as another one; all count, as images of one patient")
    if contradictions:
        notes.append(f"{contradictions:,} contents are labelled both {NORMAL} and {PNEUMONIA}: correct the labels")
    if card.name == metadata.dataset["name"]:
        notes.append(f"the model was trained on a data set of the same name ({card.name}): look whether it saw these "
                     "images before")  # fmt: skip
    if comparison is None:
        notes.append("distance from training unknown: the model has no statistics of its training images")
    return {
        "data": {
            "name": card.name,
            "kind": card.kind,
            "source": card.source,
            "licence": card.licence,
            "digest": content_digest(rows),
        },
        "model": metadata.model,
        "data_digest": metadata.data_digest,
        "split_digest": metadata.split_digest,
        "version": context.version,
        "alias": context.alias,
        "trained_on": metadata.dataset["name"],
        "temperature": metadata.temperature,
        "threshold": metadata.threshold,
        "labels": {
            "known": labels.counts,
            "unknown": dict(labels.unknown),
            "images_without_label": labels.without_label,
            "rows_of_other_values": dict(labels.other_rows),
            "rows_without_image": labels.missing,
            "repeated_rows": labels.repeated_rows,
        },
        "files_left_out": dict(context.files_left_out),
        "unreadable": count_errors(rows),
        "warnings": count_warnings(rows),
        **judgement.report,
        "distance": None if comparison is None else comparison.to_dict(),
        "notes": notes,
    }


def _write_plots(
    folder: Path,
    judgement: Judgement,
    answered: pd.DataFrame,
    sheet: pd.DataFrame,
    comparison: WindowComparison | None,
    context: JudgementContext,
    read_grey: Callable[[str], NDArray[np.uint8]],
) -> None:
    metadata, card, curves = context.metadata, context.card, judgement.curves
    model = metadata.model if context.version is None else f"{metadata.model}, version {context.version}"
    is_phantom = "phantom" in (metadata.dataset_kind, card.kind)
    caption = Caption(model, card.name, "outside data", is_phantom)
    threshold, entry = float(metadata.threshold or 0), judgement.report[ANSWERED]
    figures = {}
    if entry is not None:
        figures["confusion"] = plot_confusion(entry, threshold, caption)
        figures["scores"] = plot_scores(answered, entry, threshold, caption)
        images = [read_grey(path) for path in sheet["path"]]
        figures["mistakes"] = plot_mistakes(sheet, images, entry, caption)
    if entry is not None and curves:
        figures["roc"] = plot_roc(curves["roc"], curves["roc_band"], entry, threshold, caption)
        figures["precision_recall"] = plot_precision_recall(curves["precision_recall"], entry, threshold, caption)
        figures["calibration"] = plot_calibration(
            curves["calibration"], answered, entry, float(metadata.temperature or 1), caption
        )
    if comparison is not None and comparison.tests:
        figures["distances"] = plot_distances(comparison, caption)
    folder.mkdir()
    for name, figure in figures.items():
        save_png(figure, folder / f"{name}.png")


def _page(report: Mapping[str, Any], sheet: pd.DataFrame, context: JudgementContext) -> str:
    metadata, card = context.metadata, context.card
    subject = metadata.model if context.version is None else f"{metadata.model}, version {context.version}"
    alias = f" ({context.alias})" if context.alias else ""
    lines = [f"# {metadata.model} on {card.name}", ""]
    if "phantom" in (metadata.dataset_kind, card.kind):
        lines += ["> **Phantoms: drawn images, not patients.** The figures say nothing about people.", ""]
    lines += [
        f"{subject}{alias}, was trained on {metadata.dataset['name']} and judged here on {card.name}. Nothing was "
        f"fitted on these images: the threshold {metadata.threshold:.3f} and the calibration are the model's own. "
        "For research, not for diagnosis.",
        "",
        "## Images",
        "",
        *_image_lines(report),
        "",
        "## Figures",
        "",
        _figures_table(report, context.own_test),
        f"Brackets hold 95 % intervals from a bootstrap over {report['bootstrap']['unit']}s. The model answers for the "
        "images of the first column; the second one also has those that it refuses, as if it refused none.",
        "",
        *(["## Slices", "", *describe_slices(report), ""] if SLICES in report else []),
        "## Distance from training",
        "",
        *_distance_lines(report["distance"]),
        "",
        "## The most confident mistakes",
        "",
        *_mistake_lines(sheet),
    ]
    if report["notes"]:
        lines += ["", "## Notes", "", *(f"- {note}" for note in report["notes"])]
    return "\n".join(lines) + "\n"


def _image_lines(report: Mapping[str, Any]) -> list[str]:
    labels, refusals = report["labels"], report["refusals"]
    known = labels["known"]
    entry = report[ALL]
    patients = f" of {entry['patients']:,} patients" if "patients" in entry else ", patients unknown"
    lines = [
        f"- from {describe_source(report['data'])}",
        f"- {sum(known.values()):,} images with a known class{patients}: "
        + ", ".join(f"{known[label]:,} {label}" for label in CLASSES),
    ]
    if unknown := labels["unknown"]:
        lines.append(f"- {sum(unknown.values()):,} left out, class unknown: {describe_unknown(unknown)}")
    for key, reason in (
        ("images_without_label", "images left out: no row that counts, or outside of the class folders"),
        ("rows_without_image", "rows left out: their image is not there"),
        ("repeated_rows", "rows repeat an image: each image counts once"),
    ):
        if labels[key]:
            lines.append(f"- {labels[key]:,} {reason}")
    lines += [
        f"- {count:,} rows left out by their {column}"
        for column, count in labels["rows_of_other_values"].items() if count
    ]  # fmt: skip
    lines += [f"- {count:,} cannot be read: {kind}" for kind, count in report["unreadable"].items()]
    lines += [f"- {count:,} read although unusual: {kind}" for kind, count in report["warnings"].items()]
    reasons = ", ".join(f"{kind} ({count:,})" for kind, count in refusals["reasons"].items())
    lines.append(f"- refused: {_describe_share(refusals)}{': ' if reasons else ''}{reasons}")
    lines += [f"- refused of {label}: {_describe_share(entry)}" for label, entry in refusals["classes"].items()]
    return lines


def _describe_share(entry: Mapping[str, Any]) -> str:
    if not entry["images"]:
        return "no images"
    interval = f"[{format_share(entry['low'])} to {format_share(entry['high'])}]"
    return f"{entry['refused']:,} of {entry['images']:,}, {format_share(entry['share'])} {interval}"


def _figures_table(report: Mapping[str, Any], own_test: Mapping[str, float]) -> str:
    names = [name for name, metric in METRICS.items() if metric.in_summary]
    entries = [report[name] or {"at_threshold": {}} for name in (ANSWERED, ALL)]
    rows = [
        [
            measure_heading(name),
            *(format_measure(name, entry["at_threshold"]) for entry in entries),
            format_value(name, own_test[name]) if name in own_test else UNKNOWN,
        ]
        for name in names
    ]
    sets = [entry.get("prediction_sets", {}) for entry in entries]
    if any(sets):
        rows.append(["Uncertain", *(_format_uncertain(part) for part in sets), UNKNOWN])
    counts = [f"{report[name]['images']:,}" if report[name] else "0" for name in (ANSWERED, ALL)]
    rows.insert(0, ["Images", *counts, UNKNOWN])
    return markdown_table(["Measure", "Images that get an answer", "With the refused ones", "Its own test"], rows)


def _format_uncertain(sets: Mapping[str, Any]) -> str:
    return format_interval(SHARE, sets["uncertain"]) if sets else UNKNOWN


def _distance_lines(distance: Mapping[str, Any] | None) -> list[str]:
    if distance is None:
        return ["Unknown."]
    lines = [f"{distance['sentence'][0].upper()}{distance['sentence'][1:]}.", *(f"- {n}" for n in distance["notes"])]
    tests = sorted(distance["findings"], key=lambda test: test["distance"] / test["limit"], reverse=True)
    rows = [
        [test["name"].replace("_", " "), _number(test["before"]), _number(test["now"]), f"{test['distance']:.2f}",
         f"{test['limit']:g}", "yes" if test["drifted"] else "no"]
        for test in tests
    ]  # fmt: skip
    headings = ["Comparison", "Training or validation", "Here", "Distance", "Limit", "Differs"]
    return [*lines, "", markdown_table(headings, rows)] if rows else lines


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"


def _mistake_lines(sheet: pd.DataFrame) -> Sequence[str]:
    if sheet.empty:
        return ["None."]
    rows = [
        [row["kind"], f"{100 * row['probability']:.1f} %", f"`{printable_name(row['path'])}`"]
        for row in sheet.to_dict("records")
    ]
    return [markdown_table(["Kind", "Probability of pneumonia", "Image"], rows), f"See `{PLOTS_FOLDER}/mistakes.png`."]

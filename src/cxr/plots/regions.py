"""Plots of a detector of opacities beside reference methods, and images with their boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from cxr.data.split_table import TEST
from cxr.plots.style import (
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    Caption,
    describe_test_images,
    format_interval,
    mix_with_white,
    save_png,
    titled_figure,
    use_percent,
)
from cxr.regions.evaluation import MEASURES, RegionEvaluation
from cxr.regions.image_tables import ALL
from cxr.regions.matching import BOX_COLUMNS

REGION_PLOT_NAMES = ("free_response", "methods", "examples")
"""File names without suffix. There are no examples without images."""

METHOD_STYLES = (
    (INK, "-", "o"),
    (ORANGE, "--", "s"),
    (GREEN, "-.", "D"),
    (PURPLE, ":", "^"),
    (GREY, (0, (5, 1, 1, 1, 1, 1)), "v"),
)
"""Colour, line and marker of each method in order, the detector first. Each of them alone tells the methods apart, and
no colour is that of a class."""

TRUE_BOX: tuple[str, Any] = (GREEN, "-")
PREDICTED_BOX: tuple[str, Any] = (ORANGE, (0, (3, 2)))
"""Colour and line of an opacity and of a predicted box."""

_RATE_TICKS = {0.0625: "1/16", 0.125: "1/8", 0.25: "1/4", 0.5: "1/2", 1.0: "1", 2.0: "2", 4.0: "4"}


def write_region_plots(
    folder: Path,
    evaluation: RegionEvaluation,
    examples: pd.DataFrame,
    images: Sequence[NDArray[np.uint8]] | None,
    caption: Caption,
) -> list[Path]:
    """Plot a detector's evaluation and write the figures as PNG.

    Args:
        folder: where to write; created if it does not exist.
        evaluation: the evaluation.
        examples: the result of :func:`cxr.regions.examples.choose_examples`.
        images: originals of the examples, uint8 ``(height, width)`` each; None if they are not available.
        caption: what the figures are about.

    Returns:
        The files, in the order of :data:`REGION_PLOT_NAMES`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "free_response": plot_free_response(evaluation, caption),
        "methods": plot_region_methods(evaluation, caption),
    }
    if images is not None:
        figures["examples"] = plot_region_examples(evaluation, examples, images, caption)
    written = []
    for name, figure in figures.items():
        written.append(folder / f"{name}.png")
        save_png(figure, written[-1])
    return written


def plot_free_response(evaluation: RegionEvaluation, caption: Caption) -> Figure:
    """Plot the free-response ROC of all methods on test.

    Args:
        evaluation: the evaluation.
        caption: what the figure is about.

    Returns:
        The figure. Large markers are the operating points that validation chose; the shaded band is the 95 % interval
        of the detector.
    """
    report = evaluation.report
    test, rules = report[TEST], report["rules"]
    lowest, highest = min(_RATE_TICKS), max(_RATE_TICKS)
    detail = f"{describe_test_images(test)}, {test['opacities']} opacities"
    with _region_figure("How many opacities does it find?", evaluation, caption, detail, (8.4, 6.8)) as figure:
        axes = figure.subplots()
        band = evaluation.free_response_band
        axes.fill_between(
            band["false_positives_per_image"], band["low"], band["high"], color=mix_with_white(METHOD_STYLES[0][0], 0.2)
        )
        axes.axvline(rules["false_positives"], color=GREY, linewidth=1, linestyle=(0, (4, 4)))
        for (name, method), (colour, line, marker) in zip(report["methods"].items(), METHOD_STYLES, strict=False):
            curve = evaluation.free_response[evaluation.free_response["method"] == name]
            rate = np.clip(curve["false_positives_per_image"].to_numpy(), lowest / 2, None)
            sensitivity = curve["sensitivity"].to_numpy()
            at_rate = format_interval(test["methods"][name][ALL]["sensitivity"])
            axes.plot(
                np.r_[rate, 2 * highest], np.r_[sensitivity, sensitivity[-1]], color=colour, linestyle=line,
                drawstyle="steps-post", label=f"{method['title']}: {at_rate}",
            )  # fmt: skip
            counts = curve[curve["threshold"] >= method["operating_point"]["threshold"]]
            if len(counts):
                point = counts.iloc[-1]
                axes.plot(
                    np.clip(point["false_positives_per_image"], lowest, highest), point["sensitivity"], marker,
                    color=colour, markersize=9, markeredgecolor="white", zorder=5, clip_on=False,
                )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xlim(lowest, highest)
        axes.set_ylim(0, 1)
        axes.set_xticks(list(_RATE_TICKS), list(_RATE_TICKS.values()))
        axes.minorticks_off()
        use_percent(axes.yaxis)
        axes.set_xlabel("false positives per image")
        axes.set_ylabel(f"opacities hit (IoU above {rules['iou_threshold']:g})")
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2 if len(report["methods"]) > 1 else 1, fontsize=9.5,
            title=f"Sensitivity at {rules['false_positives']:g} false positives per image; marker: operating point",
            title_fontsize=9.5,
        )  # fmt: skip
    return figure


def plot_region_methods(evaluation: RegionEvaluation, caption: Caption) -> Figure:
    """Plot the three measures of all methods on test, by stratum.

    Args:
        evaluation: the evaluation.
        caption: what the figure is about.

    Returns:
        The figure, with 95 % intervals.
    """
    report = evaluation.report
    test, rules, methods = report[TEST], report["rules"], report["methods"]
    strata = list(test["strata"])
    step = 0.72 / len(methods)
    titles = {**MEASURES, "sensitivity": f"Sensitivity, {rules['false_positives']:g} FP per image"}
    detail = f"{describe_test_images(test)}, {test['opacities']} opacities"
    size = (10.6, 2.4 + 0.2 * len(strata) * (1 + len(methods)))
    with _region_figure("How does it compare, and where?", evaluation, caption, detail, size) as figure:
        panels = figure.subplots(1, len(MEASURES), sharey=True, gridspec_kw={"wspace": 0.1})
        for axes, measure in zip(panels, MEASURES, strict=True):
            for number, (name, (colour, _, marker)) in enumerate(zip(methods, METHOD_STYLES, strict=False)):
                positions = np.arange(len(strata)) + (number - (len(methods) - 1) / 2) * step
                entries = [test["methods"][name][stratum][measure] for stratum in strata]
                lows, highs = ([entry[key] for entry in entries] for key in ("low", "high"))
                axes.hlines(positions, lows, highs, color=colour, linewidth=1.6, alpha=0.5)
                axes.plot(
                    [entry["value"] for entry in entries], positions, marker, color=colour, markersize=6.5,
                    markeredgecolor="white", zorder=4, clip_on=False, label=methods[name]["title"], linestyle="none",
                )  # fmt: skip
            axes.set_title(titles[measure], loc="left", fontsize=11, fontweight="bold")
            axes.set_ylim(len(strata) - 0.5, -0.5)
            axes.set_yticks(np.arange(len(strata) - 1) + 0.5, minor=True)
            axes.grid(False, axis="y", which="major")
            axes.grid(True, axis="y", which="minor")
            axes.tick_params(axis="y", which="minor", length=0)
            if measure != "auroc":
                axes.set_xlim(left=0)
            if measure == "sensitivity":
                use_percent(axes.xaxis)
        counts = test["strata"]
        labels = [f"{name}\n{counts[name]['images']} images, {counts[name]['opacities']} opacities" for name in strata]
        panels[0].set_yticks(np.arange(len(strata)), labels, fontsize=9.5, color=INK)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(methods), fontsize=9.5)
    return figure


def plot_region_examples(
    evaluation: RegionEvaluation, examples: pd.DataFrame, images: Sequence[NDArray[np.uint8]], caption: Caption
) -> Figure:
    """Show test images with their opacities and the detector's boxes that count.

    Args:
        evaluation: the evaluation.
        examples: the result of :func:`cxr.regions.examples.choose_examples`.
        images: originals, uint8 ``(height, width)`` each, in the order of the rows.
        caption: what the figure is about.

    Returns:
        The figure. Opacities are green, solid; predicted boxes are orange, dashed, with their scores.
    """
    detector = next(iter(evaluation.report["methods"]))
    shown = evaluation.predictions["counts"] & (evaluation.predictions["method"] == detector)
    predicted = evaluation.predictions[shown]
    columns = min(4, max(2, len(examples)))
    rows = max(1, -(-len(examples) // columns))
    detail = "even steps from the lowest to the highest average precision, then normal images"
    figure_width = 10.6
    tallest = max((image.shape[0] / image.shape[1] for image in images), default=1.0)
    row_height = 0.35 + tallest * figure_width / columns
    with _region_figure(
        "Where does it see opacities?", evaluation, caption, detail, (figure_width, 1.3 + row_height * rows)
    ) as figure:
        panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for axes in panels:
            axes.set_axis_off()
        for axes, image, row in zip(panels, images, examples.to_dict("records"), strict=False):
            height, width = image.shape
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
            boxes = evaluation.boxes[evaluation.boxes["path"] == row["path"]]
            _draw_boxes(axes, boxes, *TRUE_BOX)
            _draw_boxes(axes, predicted[predicted["path"] == row["path"]], *PREDICTED_BOX)
            value = row["average_precision"]
            axes.set_title(
                f"average precision {value:.2f}" if len(boxes) else f"{row['label'].lower()}, no opacity",
                fontsize=9.5, color=INK,
            )  # fmt: skip
            axes.set_xlim(0, width)
            axes.set_ylim(height, 0)
        keys = [
            Line2D([], [], color=colour, linestyle=line, label=label)
            for (colour, line), label in ((TRUE_BOX, "opacity"), (PREDICTED_BOX, "predicted box with its score"))
        ]
        figure.legend(handles=keys, loc="outside lower center", ncols=2, fontsize=10)
    return figure


@contextmanager
def _region_figure(
    title: str, evaluation: RegionEvaluation, caption: Caption, detail: str, size: tuple[float, float]
) -> Iterator[Figure]:
    """A titled figure. If the images are phantoms, a line below the caption says what that means."""
    note = evaluation.report["data"]["note"]
    with titled_figure(title, replace(caption, phantom=note is not None), detail, size=size) as figure:
        if note is not None:
            figure.text(0.18 / size[0], 1 - 0.64 / size[1], note, fontsize=9.5, color=INK, va="top")
        yield figure


def _draw_boxes(axes: Axes, boxes: pd.DataFrame, colour: str, line: Any) -> None:
    """Draw boxes with a light or dark border, so that they are seen on bone and on air."""
    for box in boxes.to_dict("records"):
        x, y, width, height = (float(box[column]) for column in BOX_COLUMNS[1:])
        outline = [Stroke(linewidth=3.6, foreground="white", alpha=0.75), Normal()]
        axes.add_patch(
            Rectangle(
                (x, y), width, height, fill=False, edgecolor=colour, linewidth=1.8, linestyle=line, path_effects=outline
            )
        )
        if "score" in box:
            axes.text(
                x + width, y, f"{box['score']:.2f}", fontsize=8, fontweight="bold", color="black",
                ha="right", va="bottom",
                bbox={"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none"},
            )  # fmt: skip

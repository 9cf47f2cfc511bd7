"""Plots of a classifier on test: ROC, precision and recall, confusion matrix, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.data.statistics import wilson_interval
from cxr.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    VERMILLION,
    Caption,
    describe_test_images,
    error_bars,
    format_interval,
    format_percent,
    mix_with_white,
    titled_figure,
    use_percent,
)

ENLARGED_FROM = 0.9
"""AUROC from which on the upper left corner of a ROC curve is enlarged."""


def plot_roc(
    curve: pd.DataFrame, interval: pd.DataFrame, test: Mapping[str, Any], threshold: float, caption: Caption
) -> Figure:
    """Plot the ROC curve with its interval over patients and the operating point.

    From an AUROC of :data:`ENLARGED_FROM` on, the upper left corner is enlarged.

    Args:
        curve: the result of :func:`cxr.evaluation.curves.roc_curve`.
        interval: the result of :func:`cxr.evaluation.curves.roc_band`.
        test: the test entry of the evaluation's report.
        threshold: the operating point.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    measures = test["at_threshold"]
    with titled_figure("How well are the classes told apart?", caption, describe_test_images(test)) as figure:
        axes = figure.add_subplot()
        # The curve of a poor model runs where the enlarged corner and the legend would lie.
        enlarged = measures["auroc"]["value"] >= ENLARGED_FROM
        inset = axes.inset_axes((0.40, 0.25, 0.57, 0.47)) if enlarged else None
        for panel in (axes, inset) if inset is not None else (axes,):
            panel.fill_between(
                interval["false_positive_rate"],
                interval["low"],
                interval["high"],
                color=BLUE,
                alpha=0.16,
                linewidth=0,
                label="95 % interval over patients",
            )
            panel.plot(
                curve["false_positive_rate"],
                curve["sensitivity"],
                color=BLUE,
                label=f"AUROC {format_interval(measures['auroc'])}",
            )
            panel.plot(
                1 - measures["specificity"]["value"],
                measures["sensitivity"]["value"],
                "o",
                markersize=9,
                color=VERMILLION,
                markeredgecolor="white",
                markeredgewidth=1.5,
                zorder=5,
                label=f"threshold {threshold:.3f}: sensitivity {format_percent(measures['sensitivity']['value'])}, "
                f"specificity {format_percent(measures['specificity']['value'])}",
            )
            use_percent(panel.xaxis, panel.yaxis)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 4)))
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set(xlabel="normal images called pneumonia (1 − specificity)", ylabel="pneumonia found (sensitivity)")
        if inset is not None:
            _enlarge_corner(axes, inset, measures)
            axes.legend(loc="lower right", handlelength=1.4, borderaxespad=0.2)
        else:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", handlelength=1.4)
    return figure


def _enlarge_corner(axes: Axes, inset: Axes, measures: Mapping[str, Any]) -> None:
    """Let an inset show the upper left corner, as far as the operating point."""
    reach = max(0.2, min(1.0, 1.25 * (1 - measures["specificity"]["value"])))
    floor = min(0.8, max(0.0, 1 - 1.25 * (1 - measures["sensitivity"]["value"])))
    inset.set(xlim=(0, reach), ylim=(floor, 1.002))
    inset.tick_params(labelsize=8.5)
    for axis in (inset.xaxis, inset.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.indicate_inset_zoom(inset, edgecolor=GREY, alpha=0.4)


def plot_precision_recall(curve: pd.DataFrame, test: Mapping[str, Any], threshold: float, caption: Caption) -> Figure:
    """Plot precision against sensitivity, with the operating point and the share of pneumonia as the baseline.

    Args:
        curve: the result of :func:`cxr.evaluation.curves.precision_recall_curve`.
        test: the test entry of the evaluation's report.
        threshold: the operating point.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    measures = test["at_threshold"]
    share = test["pneumonia"] / test["images"]
    with titled_figure("When it says pneumonia, is it right?", caption, describe_test_images(test)) as figure:
        axes = figure.add_subplot()
        axes.axhline(share, color=GREY, linewidth=1, linestyle=(0, (4, 4)))
        axes.text(
            0.01,
            share,
            f"calling every image pneumonia: {format_percent(share)}",
            va="bottom",
            color=GREY,
            fontsize=9.5,
        )
        axes.plot(
            curve["sensitivity"],
            curve["precision"],
            color=BLUE,
            drawstyle="steps-pre",
            label=f"average precision {format_interval(measures['average_precision'])}",
        )
        sensitivity, precision = measures["sensitivity"], measures["precision"]
        axes.errorbar(
            sensitivity["value"],
            precision["value"],
            xerr=error_bars(sensitivity),
            yerr=error_bars(precision),
            fmt="o",
            markersize=9,
            color=VERMILLION,
            markeredgecolor="white",
            markeredgewidth=1.5,
            elinewidth=1.4,
            zorder=5,
            label=f"threshold {threshold:.3f}: precision {format_percent(precision['value'])}, "
            f"sensitivity {format_percent(sensitivity['value'])}",
        )
        floor = np.floor(10 * min(share, float(curve["precision"].min()))) / 10
        axes.set(xlim=(-0.01, 1.01), ylim=(max(0.0, floor - 0.1), 1.01))
        axes.set(xlabel="pneumonia found (sensitivity, recall)", ylabel="pneumonia among positive calls (precision)")
        use_percent(axes.xaxis, axes.yaxis)
        axes.legend(loc="lower left", handlelength=1.4)
    return figure


def plot_confusion(test: Mapping[str, Any], threshold: float, caption: Caption) -> Figure:
    """Plot the confusion matrix, with counts and shares of each true class.

    Args:
        test: the test entry of the evaluation's report.
        threshold: the operating point.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    counts = test["confusion"]
    table = np.array(
        [[counts["true_negatives"], counts["false_positives"]], [counts["false_negatives"], counts["true_positives"]]],
        dtype=np.float64,
    )
    sizes = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, sizes, out=np.full_like(table, np.nan), where=sizes > 0)
    names = (("rightly called normal", "false alarm"), ("missed", "pneumonia found"))
    with titled_figure("What happens to each image?", caption, f"threshold {threshold:.3f}") as figure:
        axes = figure.add_subplot()
        for (row, column), share in np.ndenumerate(shares):
            strength = 0.08 + 0.85 * float(np.nan_to_num(share))
            face = mix_with_white(BLUE if row == column else VERMILLION, strength)
            axes.add_patch(mpl.patches.Rectangle((column + 0.01, row + 0.01), 0.98, 0.98, facecolor=face, linewidth=0))
            ink = "white" if strength > 0.55 else INK
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
            axes.text(column + 0.5, row + 0.40, f"{int(table[row, column])}", fontsize=30, fontweight="bold", **style)
            axes.text(column + 0.5, row + 0.60, format_percent(float(share)), fontsize=14, **style)
            axes.text(column + 0.5, row + 0.74, names[row][column], fontsize=10.5, **style)
        axes.set(xlim=(0, 2), ylim=(2, 0), aspect="equal", xticks=(0.5, 1.5), yticks=(0.5, 1.5))
        axes.set_xticklabels(["called normal", "called pneumonia"], fontsize=12, color=INK)
        axes.set_yticklabels(
            [f"normal\n{int(sizes[0, 0])} images", f"pneumonia\n{int(sizes[1, 0])} images"], fontsize=12, color=INK
        )
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
    return figure


def plot_calibration(
    curve: pd.DataFrame, predictions: pd.DataFrame, test: Mapping[str, Any], temperature: float, caption: Caption
) -> Figure:
    """Plot the reliability diagram before and after calibration, above a histogram of the probabilities.

    Args:
        curve: the result of :func:`cxr.evaluation.curves.calibration_curve`.
        predictions: rows with split, label, probability_raw and probability.
        test: the test entry of the evaluation's report.
        temperature: calibration temperature.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    states = (
        ("before", "uncalibrated_at_half", "probability_raw", ORANGE, "s"),
        ("after", "at_threshold", "probability", BLUE, "o"),
    )
    rows = predictions[predictions["split"] == "test"]
    edges = np.linspace(0, 1, round(1 / float((curve["upper"] - curve["lower"]).iloc[0])) + 1).tolist()
    with titled_figure("Does 90 % mean 90 %?", caption, f"temperature {temperature:.3g}", size=(6.4, 7.2)) as figure:
        grid = figure.add_gridspec(2, 1, height_ratios=(3.2, 1))
        axes = figure.add_subplot(grid[0])
        histogram = figure.add_subplot(grid[1], sharex=axes)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 4)))
        for state, entry, column, colour, marker in states:
            part = curve[curve["state"] == state]
            error = test[entry]["calibration_error"]
            low, high = wilson_interval(part["observed"].to_numpy(), part["images"].to_numpy())
            axes.vlines(part["probability"], low, high, color=colour, linewidth=1.2, alpha=0.55)
            axes.scatter(
                part["probability"],
                part["observed"],
                s=18 + 260 * np.sqrt(part["images"] / test["images"]),
                color=colour,
                marker=marker,
                edgecolor="white",
                linewidth=1,
                zorder=4,
                label=f"{state} calibration: error {format_interval(error)}",
            )
            histogram.hist(rows[column], bins=edges, histtype="step", color=colour, linewidth=1.8)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), ylabel="share that has pneumonia")
        axes.legend(
            loc="lower right",
            markerscale=0.6,
            title="bars: 95 % interval of the share; size: images",
            title_fontsize=9.5,
            alignment="left",
            frameon=True,
            framealpha=0.85,
            edgecolor="none",
        )
        histogram.set(xlabel="stated probability of pneumonia", ylabel="images")
        histogram.set_yscale("symlog", linthresh=10)
        for panel in (axes, histogram):
            use_percent(panel.xaxis)
        use_percent(axes.yaxis)
        axes.tick_params(labelbottom=False)
    return figure

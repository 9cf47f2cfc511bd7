"""Figures of what a classifier decides: ROC, precision and recall, confusion matrix, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cxr.data.statistics import wilson
from cxr.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    VERMILLION,
    Caption,
    bars,
    faded,
    framed,
    images_of,
    percent,
    with_interval,
)


def roc(
    curve: pd.DataFrame, interval: pd.DataFrame, test: Mapping[str, Any], threshold: float, caption: Caption
) -> Figure:
    """ROC curve with its interval over patients, the operating point and an inset of the corner that matters.

    Args:
        curve: what :func:`cxr.evaluation.curves.roc_curve` gives.
        interval: what :func:`cxr.evaluation.curves.roc_band` gives.
        test: the test entry of the evaluation's report.
        threshold: the operating point.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    figures = test["at_threshold"]
    with framed("How well are the classes told apart?", caption, images_of(test)) as figure:
        axes = figure.add_subplot()
        inset = axes.inset_axes((0.40, 0.25, 0.57, 0.47))
        for panel in (axes, inset):
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
                label=f"AUROC {with_interval(figures['auroc'])}",
            )
            panel.plot(
                1 - figures["specificity"]["value"],
                figures["sensitivity"]["value"],
                "o",
                markersize=9,
                color=VERMILLION,
                markeredgecolor="white",
                markeredgewidth=1.5,
                zorder=5,
                label=f"threshold {threshold:.3f}: sensitivity {percent(figures['sensitivity']['value'])}, "
                f"specificity {percent(figures['specificity']['value'])}",
            )
            panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 4)))
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set(xlabel="normal images called pneumonia (1 − specificity)", ylabel="pneumonia found (sensitivity)")
        reach = max(0.2, min(1.0, 1.25 * (1 - figures["specificity"]["value"])))
        floor = min(0.8, max(0.0, 1 - 1.25 * (1 - figures["sensitivity"]["value"])))
        inset.set(xlim=(0, reach), ylim=(floor, 1.002))
        inset.tick_params(labelsize=8.5)
        for axis in (inset.xaxis, inset.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.indicate_inset_zoom(inset, edgecolor=GREY, alpha=0.4)
        axes.legend(loc="lower right", handlelength=1.4, borderaxespad=0.2)
    return figure


def precision_recall(curve: pd.DataFrame, test: Mapping[str, Any], threshold: float, caption: Caption) -> Figure:
    """Precision against sensitivity with the operating point and the share of pneumonia as the floor.

    Args:
        curve: what :func:`cxr.evaluation.curves.precision_recall_curve` gives.
        test: the test entry of the evaluation's report.
        threshold: the operating point.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    figures = test["at_threshold"]
    share = test["pneumonia"] / test["images"]
    with framed("When it says pneumonia, is it right?", caption, images_of(test)) as figure:
        axes = figure.add_subplot()
        axes.axhline(share, color=GREY, linewidth=1, linestyle=(0, (4, 4)))
        axes.text(
            0.01,
            share,
            f"calling every image pneumonia: {percent(share)}",
            va="bottom",
            color=GREY,
            fontsize=9.5,
        )
        axes.plot(
            curve["sensitivity"],
            curve["precision"],
            color=BLUE,
            drawstyle="steps-pre",
            label=f"average precision {with_interval(figures['average_precision'])}",
        )
        sensitivity, precision = figures["sensitivity"], figures["precision"]
        axes.errorbar(
            sensitivity["value"],
            precision["value"],
            xerr=bars(sensitivity),
            yerr=bars(precision),
            fmt="o",
            markersize=9,
            color=VERMILLION,
            markeredgecolor="white",
            markeredgewidth=1.5,
            elinewidth=1.4,
            zorder=5,
            label=f"threshold {threshold:.3f}: precision {percent(precision['value'])}, "
            f"sensitivity {percent(sensitivity['value'])}",
        )
        floor = np.floor(10 * min(share, float(curve["precision"].min()))) / 10
        axes.set(xlim=(-0.01, 1.01), ylim=(max(0.0, floor - 0.1), 1.01))
        axes.set(
            xlabel="pneumonia found (sensitivity, recall)",
            ylabel="pneumonia among positive calls (precision)",
        )
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.legend(loc="lower left", handlelength=1.4)
    return figure


def confusion(test: Mapping[str, Any], threshold: float, caption: Caption) -> Figure:
    """Confusion matrix with counts and shares of each true class.

    Args:
        test: the test entry of the evaluation's report.
        threshold: the operating point.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    counts = test["confusion"]
    table = np.array(
        [
            [counts["true_negatives"], counts["false_positives"]],
            [counts["false_negatives"], counts["true_positives"]],
        ],
        dtype=np.float64,
    )
    sizes = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, sizes, out=np.full_like(table, np.nan), where=sizes > 0)
    names = (("rightly called normal", "false alarm"), ("missed", "pneumonia found"))
    with framed("What happens to each image?", caption, f"threshold {threshold:.3f}") as figure:
        axes = figure.add_subplot()
        for (row, column), share in np.ndenumerate(shares):
            strength = 0.08 + 0.85 * float(np.nan_to_num(share))
            face = faded(BLUE if row == column else VERMILLION, strength)
            axes.add_patch(mpl.patches.Rectangle((column + 0.01, row + 0.01), 0.98, 0.98, facecolor=face, linewidth=0))
            ink = "white" if strength > 0.55 else INK
            place: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
            axes.text(
                column + 0.5,
                row + 0.40,
                f"{int(table[row, column])}",
                fontsize=30,
                fontweight="bold",
                **place,
            )
            axes.text(column + 0.5, row + 0.60, percent(float(share)), fontsize=14, **place)
            axes.text(column + 0.5, row + 0.74, names[row][column], fontsize=10.5, **place)
        axes.set(xlim=(0, 2), ylim=(2, 0), aspect="equal", xticks=(0.5, 1.5), yticks=(0.5, 1.5))
        axes.set_xticklabels(["called normal", "called pneumonia"], fontsize=12, color=INK)
        axes.set_yticklabels(
            [f"normal\n{int(sizes[0, 0])} images", f"pneumonia\n{int(sizes[1, 0])} images"],
            fontsize=12,
            color=INK,
        )
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
    return figure


def calibration(
    curve: pd.DataFrame,
    predictions: pd.DataFrame,
    test: Mapping[str, Any],
    temperature: float,
    caption: Caption,
) -> Figure:
    """Reliability diagram before and after calibration, over a histogram of the stated probabilities.

    Args:
        curve: what :func:`cxr.evaluation.curves.calibration_curve` gives.
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
    with framed("Does 90 % mean 90 %?", caption, f"temperature {temperature:.3g}", size=(6.4, 7.2)) as figure:
        grid = figure.add_gridspec(2, 1, height_ratios=(3.2, 1))
        axes = figure.add_subplot(grid[0])
        below = figure.add_subplot(grid[1], sharex=axes)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 4)))
        for state, entry, column, colour, marker in states:
            part = curve[curve["state"] == state]
            error = test[entry]["calibration_error"]
            low, high = wilson(part["observed"].to_numpy(), part["images"].to_numpy())
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
                label=f"{state} calibration: error {with_interval(error)}",
            )
            below.hist(rows[column], bins=edges, histtype="step", color=colour, linewidth=1.8)
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
        below.set(xlabel="stated probability of pneumonia", ylabel="images")
        below.set_yscale("symlog", linthresh=10)
        for panel in (axes, below):
            panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.tick_params(labelbottom=False)
    return figure

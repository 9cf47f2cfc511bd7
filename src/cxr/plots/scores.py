"""Plots of single test images: their probabilities, and the most confident mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import logit

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.evaluation.mistakes import FALSE_ALARM, MISSED
from cxr.plots.style import (
    BLUE,
    COLOURS,
    GREY,
    INK,
    VERMILLION,
    Caption,
    describe_test_images,
    format_percent,
    mix_with_white,
    titled_figure,
)

MAX_LOGIT = 9.0
"""Probabilities are drawn on a logit axis, which ends at odds of e^9, about 1 in 8,000."""


def plot_scores(predictions: pd.DataFrame, test: Mapping[str, Any], threshold: float, caption: Caption) -> Figure:
    """Plot the calibrated probabilities of the test images by subtype, with the threshold.

    Args:
        predictions: rows with split, subtype, label and probability.
        test: the test entry of the evaluation's report.
        threshold: the operating point.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    rows = predictions[predictions["split"] == "test"]
    subtypes = [(name, part) for name, part in rows.groupby("subtype", sort=False) if len(part)]
    subtypes.sort(key=lambda subtype: (subtype[1]["label"].iloc[0] != NORMAL, str(subtype[0])))
    edges = np.linspace(-MAX_LOGIT, MAX_LOGIT, 73)
    threshold_position = float(np.clip(logit(np.clip(threshold, 1e-9, 1 - 1e-9)), -MAX_LOGIT, MAX_LOGIT))
    with titled_figure(
        "How sure is it, and of what?", caption, describe_test_images(test), size=(8.4, 1.6 + 1.45 * len(subtypes))
    ) as figure:
        panels = figure.subplots(len(subtypes), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, part) in zip(panels, subtypes, strict=True):
            is_pneumonia = part["label"].iloc[0] == PNEUMONIA
            called_pneumonia = (part["probability"] >= threshold).to_numpy()
            values = np.clip(logit(np.clip(part["probability"], 1e-9, 1 - 1e-9)), -MAX_LOGIT, MAX_LOGIT).to_numpy()
            correct = called_pneumonia == is_pneumonia
            colour = COLOURS[PNEUMONIA if is_pneumonia else NORMAL]
            axes.hist(
                [values[correct], values[~correct]],
                bins=edges.tolist(),
                stacked=True,
                histtype="stepfilled",  # one shape per colour: bars take ten times as long
                color=[mix_with_white(colour), INK],
            )
            axes.axvline(threshold_position, color=INK, linewidth=1.4)
            axes.set_yscale("symlog", linthresh=10)
            axes.set_ylim(0, max(10, 1.4 * np.histogram(values, edges)[0].max()))
            axes.yaxis.set_major_locator(mpl.ticker.FixedLocator([0, 5, 10, 30, 100, 300, 1000]))
            axes.yaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
            axes.set_ylabel("images", fontsize=9.5)
            axes.set_title(
                f"{name}: {len(part)} images, {format_percent(float(correct.mean()))} on the right side",
                loc="left",
                fontsize=11,
                fontweight="bold",
                color=colour,
            )
        ticks = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
        panels[-1].set_xticks([float(logit(tick)) for tick in ticks], [f"{100 * tick:g} %" for tick in ticks])
        panels[-1].set_xlabel(f"calibrated probability of pneumonia (line: threshold {threshold:.3f}; black: wrong)")
    return figure


def plot_mistakes(
    sheet: pd.DataFrame, images: Sequence[NDArray[np.uint8]], test: Mapping[str, Any], caption: Caption
) -> Figure:
    """Show the most confident mistakes: missed pneumonia above, false alarms below.

    Args:
        sheet: the result of :func:`cxr.evaluation.mistakes.worst_mistakes`.
        images: uint8 ``(height, width)`` each, in the order of the rows.
        test: the test entry of the evaluation's report.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    counts = test["confusion"]
    rows = (
        (MISSED, f"Pneumonia called normal: {counts['false_negatives']} of {test['pneumonia']}", VERMILLION),
        (FALSE_ALARM, f"Normal called pneumonia: {counts['false_positives']} of {test['normal']}", BLUE),
    )
    columns = max(4, *(int((sheet["kind"] == kind).sum()) for kind, _, _ in rows))
    detail = "probability of pneumonia above each image"
    with titled_figure("The most confident mistakes", caption, detail, size=(2.0 * columns, 6.6)) as figure:
        for subfigure, (kind, title, colour) in zip(
            np.ravel(np.asarray(figure.subfigures(2, 1), dtype=object)), rows, strict=True
        ):
            subfigure.suptitle(title, x=0.015, ha="left", fontsize=12, fontweight="bold", color=colour)
            panels = subfigure.subplots(1, columns)
            positions = np.flatnonzero((sheet["kind"] == kind).to_numpy()).tolist()
            for axes in panels:
                axes.set_axis_off()
            for axes, position in zip(panels, positions, strict=False):
                row = sheet.iloc[position]
                axes.imshow(images[position], cmap="gray", vmin=0, vmax=255, aspect="equal")
                axes.set_title(format_percent(float(row["probability"])), fontsize=12, fontweight="bold", color=INK)
                axes.text(
                    0.5,
                    -0.03,
                    _wrapped_name(str(row["path"])),
                    transform=axes.transAxes,
                    ha="center",
                    va="top",
                    fontsize=7.5,
                    color=GREY,
                )
            if not positions:
                subfigure.text(0.5, 0.5, "none", ha="center", va="center", fontsize=13, color=GREY)
    return figure


def _wrapped_name(path: str, width: int = 26) -> str:
    """File name without folders and suffix, wrapped to the width of its image."""
    name = path.rpartition("/")[2].rpartition(".")[0]
    return "\n".join(name[start : start + width] for start in range(0, len(name), width))

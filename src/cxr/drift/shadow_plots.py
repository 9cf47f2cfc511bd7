"""Plots of a comparison with a shadow: probabilities, their differences, and the images with different outcomes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxr.drift.shadow_comparison import REFUSED, ShadowComparison
from cxr.plots.style import BLUE, GREY, INK, VERMILLION, Caption, titled_figure, use_percent

COLUMNS = 6
"""Images in a row of the sheet."""


def plot_probabilities_of_both(comparison: ShadowComparison, both: pd.DataFrame, caption: Caption) -> Figure:
    """Plot the probability of the shadow over that of the version, for each image.

    Args:
        comparison: the comparison.
        both: the rows of both, some of them with both probabilities.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    predicted = both[both["difference"].notna()]
    same = predicted["label"].eq(predicted["shadow_label"])
    detail = f"{comparison.predicted:,} images with both probabilities"
    with titled_figure("Do both give the same probability?", caption, detail, size=(7.2, 7.2)) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 3)))
        for part, colour, marker, label in (
            (predicted[same], BLUE, "o", "same label"),
            (predicted[~same], VERMILLION, "D", "different labels"),
        ):
            axes.plot(
                part["probability"], part["shadow_probability"], marker, color=colour, markersize=4.5, alpha=0.6,
                markeredgewidth=0, label=f"{label} ({len(part):,})",
            )  # fmt: skip
        axes.axvline(float(predicted["threshold"].iloc[-1]), color=INK, linewidth=1, linestyle=(0, (4, 2)))
        axes.axhline(float(predicted["shadow_threshold"].iloc[-1]), color=INK, linewidth=1, linestyle=(0, (4, 2)))
        axes.set(
            xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
            xlabel=f"version {comparison.pair.version} (line: threshold)",
            ylabel=f"shadow, version {comparison.pair.shadow_version}",
        )  # fmt: skip
        use_percent(axes.xaxis, axes.yaxis)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def plot_differences(comparison: ShadowComparison, both: pd.DataFrame, caption: Caption) -> Figure:
    """Plot the histogram of the differences of the probabilities.

    Args:
        comparison: the comparison.
        both: the rows of both, some of them with both probabilities.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    difference = both["difference"].dropna().to_numpy(np.float64)
    detail = f"mean {100 * comparison.mean_difference:+.1f} points"
    limit = max(0.05, float(np.abs(difference).max()))
    with titled_figure("By how much do they differ?", caption, detail, size=(8.4, 4.6)) as figure:
        axes = figure.add_subplot()
        axes.hist(difference, bins=np.linspace(-limit, limit, 42).tolist(), color=BLUE, alpha=0.55)
        for quantile, value in comparison.difference_quantiles.items():
            axes.axvline(value, color=INK, linewidth=2 if quantile == 0.5 else 1, linestyle=(0, (4, 2)))
        axes.set(xlabel="probability of the shadow minus that of the version; lines: 5, 25, 50, 75, 95 %")
        axes.set_ylabel("images")
        use_percent(axes.xaxis)
    return figure


def plot_disagreements_sheet(
    disagreements: pd.DataFrame, images: Sequence[NDArray[np.uint8]], total: int, caption: Caption
) -> Figure:
    """Show images with different outcomes.

    Args:
        disagreements: their rows.
        images: uint8 ``(height, width)`` each, in the order of the rows; at least one.
        total: number of all images with different outcomes.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    lines = math.ceil(len(images) / COLUMNS)
    detail = f"{len(images)} of {total:,}; the version's answer above, the shadow's below"
    with titled_figure("Where do they disagree?", caption, detail, size=(12.6, 1.0 + 2.7 * lines)) as figure:
        panels = list(figure.subplots(lines, COLUMNS, squeeze=False).flat)
        for axes in panels:
            axes.set_axis_off()
        for axes, image, (_, row) in zip(panels, images, disagreements.iterrows(), strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="equal")
            axes.set_title(f"{_answer(row, '')}\n{_answer(row, 'shadow_')}", fontsize=9, color=INK)
    return figure


def _answer(row: pd.Series, prefix: str) -> str:
    if row[f"{prefix}outcome"] == REFUSED:
        return f"refused: {row[f'{prefix}refusal']}".replace("_", " ")
    return f"{row[f'{prefix}outcome']}, {100 * row[f'{prefix}probability']:.0f} %"

"""Plots of a window: distances, images, embeddings, probabilities, and the days of the window."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from cxr.drift.window_comparison import IMAGES, DriftTest, WindowComparison
from cxr.drift.window_rows import embedding_scale, image_statistic, stack_embeddings, summarize_by_day
from cxr.evaluation.validation_scores import ValidationScores
from cxr.inference.reference.reference import Reference
from cxr.plots.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    ORANGE,
    VERMILLION,
    Caption,
    mix_with_white,
    titled_figure,
    use_percent,
)

Floats = NDArray[np.float64]

COLUMNS = 3
TRAINING_COLOUR, WINDOW_COLOUR = GREY, ORANGE
MAX_DAY_LABELS = 10
"""Largest number of days with a label on the axis."""
MAX_SCATTER_POINTS = 600
"""Largest number of points of a sample in a scatter plot."""


def plot_distances(comparison: WindowComparison, caption: Caption) -> Figure:
    """Plot the distance and the limit of every test.

    Args:
        comparison: the comparison, with at least one test.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    tests = sorted(comparison.tests, key=lambda test: test.difference.distance / test.limit)
    size = (8.4, 1.9 + 0.34 * len(tests))
    with titled_figure("What differs, and by how much?", caption, _describe_rows(comparison), size=size) as figure:
        axes = figure.add_subplot()
        for y, test in enumerate(tests):
            colour, distance = VERMILLION if test.drifted else BLUE, test.difference.distance
            axes.plot([0, distance], [y, y], color=mix_with_white(colour), linewidth=3)
            axes.plot(
                distance, y, color=colour, marker="D" if test.drifted else "o", markersize=7, linestyle="none"
            )  # fmt: skip
            axes.plot([test.limit, test.limit], [y - 0.38, y + 0.38], color=INK, linewidth=1.6)
        axes.set_yticks(range(len(tests)), [_label(test) for test in tests])
        axes.set(xlabel="distance, 0 to 1; the upright line is the limit", xlim=(0, None))
        axes.grid(axis="y", visible=False)
        handles = [
            axes.plot([], [], color=colour, marker=marker, linestyle="none", label=label)[0]
            for colour, marker, label in ((VERMILLION, "D", "drift"), (BLUE, "o", "no drift"))
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def plot_image_statistics(
    comparison: WindowComparison, reference: Reference, rows: pd.DataFrame, caption: Caption
) -> Figure:
    """Plot the density of each statistic of images, at training and in the window.

    Args:
        comparison: the comparison.
        reference: statistics of the training images.
        rows: rows of the window.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    tests = {test.name: test for test in comparison.tests if test.group == IMAGES}
    names = [name for name in reference.STATISTIC_NAMES if name in tests]
    panel_rows = math.ceil(len(names) / COLUMNS)
    accepted = rows[rows["refusal"].isna()]
    title, size = "Do the films look as at training?", (9.4, 1.5 + 2.2 * panel_rows)
    with titled_figure(title, caption, _describe_rows(comparison), size) as figure:
        panels = figure.subplots(panel_rows, COLUMNS, squeeze=False)
        for number, axes in enumerate(panels.flat):
            if number >= len(names):
                axes.set_axis_off()
                continue
            name = names[number]
            _plot_densities(axes, _training_values(reference, name).astype(np.float64), image_statistic(accepted, name))
            _set_title(axes, tests[name])
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def plot_embeddings(comparison: WindowComparison, reference: Reference, rows: pd.DataFrame, caption: Caption) -> Figure:
    """Plot embeddings along the two principal directions of the training images.

    Args:
        comparison: the comparison.
        reference: statistics of the training images.
        rows: rows of this version in the window.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    scale = embedding_scale(reference.embeddings)
    training = reference.embeddings / scale
    mean = training.mean(axis=0)
    directions = np.linalg.svd(training - mean, full_matrices=False)[2][:2]
    window = stack_embeddings(rows, training.shape[1]) / scale
    samples = ((training, TRAINING_COLOUR, "o", "training"), (window, WINDOW_COLOUR, "^", "window"))
    title, size = "Do the films lie where the training's lie?", (6.4, 6.2)
    with titled_figure(title, caption, _describe_rows(comparison), size) as figure:
        axes = figure.add_subplot()
        for points, colour, marker, label in samples:
            shown = points[np.linspace(0, len(points) - 1, min(MAX_SCATTER_POINTS, len(points))).astype(int)]
            x, y = directions @ (shown - mean).T
            axes.scatter(
                x, y, s=22, color=mix_with_white(colour, 0.8), marker=marker, label=label, linewidth=0.4,
                edgecolor="white",
            )  # fmt: skip
        axes.set(xlabel="first direction", ylabel="second direction")
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def plot_probabilities(
    comparison: WindowComparison, validation: ValidationScores, rows: pd.DataFrame, caption: Caption
) -> Figure:
    """Plot the histogram of the probabilities, on validation and in the window.

    Args:
        comparison: the comparison.
        validation: probabilities on validation.
        rows: rows of this version in the window.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    answered = rows[rows["probability"].notna()]
    bins = np.linspace(0, 1, 21).tolist()
    title, size = "Are the answers spread as on validation?", (8.4, 4.8)
    with titled_figure(title, caption, _describe_rows(comparison), size) as figure:
        axes = figure.add_subplot()
        for values, style in (
            (validation.probability, {"color": mix_with_white(TRAINING_COLOUR, 0.5), "label": "validation"}),
            (
                answered["probability"].to_numpy(np.float64),
                {"color": WINDOW_COLOUR, "histtype": "step", "linewidth": 2.4, "label": "window"},
            ),
        ):
            axes.hist(values, bins=bins, weights=np.full(len(values), 1 / max(1, len(values))), **style)
        axes.axvline(float(answered["threshold"].iloc[-1]), color=INK, linestyle=(0, (4, 2)), label="threshold")
        axes.set(xlabel="calibrated probability of pneumonia", ylabel="share of films", xlim=(0, 1))
        use_percent(axes.xaxis, axes.yaxis)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def plot_by_day(
    comparison: WindowComparison, reference: Reference | None, rows: pd.DataFrame, caption: Caption
) -> Figure:
    """Plot the number of images, refusals, share of pneumonia and the statistic that differs most, for each day.

    Args:
        comparison: the comparison.
        reference: statistics of the training images; None if the version has none.
        rows: rows of the window.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    statistics = [test for test in comparison.tests if reference is not None and test.name in reference.STATISTIC_NAMES]
    largest = max(statistics, key=lambda test: test.difference.distance, default=None)
    days = summarize_by_day(rows, [largest.name] if largest else [])
    x = days.index.to_numpy()
    title, size = "How did it go, day by day?", (9.4, 7.6 if largest else 6.0)
    with titled_figure(title, caption, _describe_rows(comparison), size) as figure:
        panels = figure.subplots(4 if largest else 3, 1, sharex=True)
        panels[0].bar(x, days["rows"], width=0.7, color=mix_with_white(BLUE), align="center")
        panels[0].set_ylabel("films")
        panels[0].yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        for axes, name in ((panels[1], "refused"), (panels[2], "pneumonia")):
            axes.vlines(x, days[f"{name}_low"], days[f"{name}_high"], color=mix_with_white(ORANGE), linewidth=5)
            axes.plot(x, days[name], color=ORANGE, marker="o", linewidth=1.4)
            reference_share = next((test.reference_value for test in comparison.tests if name in test.name), None)
            if reference_share is not None:
                axes.axhline(reference_share, color=GREY, linestyle=(0, (4, 2)), linewidth=1.4)
            axes.set(ylabel=name, ylim=(-0.03, 1.03))
            use_percent(axes.yaxis)
        if largest is not None and reference is not None:
            low, median, high = np.nanquantile(_training_values(reference, largest.name), (0.05, 0.5, 0.95))
            panels[3].axhspan(low, high, color=FAINT, zorder=0)
            panels[3].axhline(median, color=GREY, linestyle=(0, (4, 2)), linewidth=1.4)
            panels[3].plot(x, days[largest.name], color=ORANGE, marker="o", linewidth=1.4)
            panels[3].set_ylabel(_label(largest))
        labelled = days.index[:: math.ceil(len(days) / MAX_DAY_LABELS)]
        panels[-1].set_xticks(labelled.to_numpy(), [f"{day:%d %b}" for day in labelled])
        margin = pd.Timedelta(hours=18)
        panels[-1].set_xlim(days.index[0] - margin, days.index[-1] + margin)
        figure.align_ylabels(panels)
    return figure


def _training_values(reference: Reference, name: str) -> NDArray[np.float32]:
    return reference.statistics[:, list(reference.STATISTIC_NAMES).index(name)]


def _plot_densities(axes: Axes, training: Floats, window: Floats) -> None:
    training, window = training[np.isfinite(training)], window[np.isfinite(window)]
    low, high = np.quantile(np.concatenate([training, window]), (0.002, 0.998))
    margin = 0.06 * (high - low) or 1.0
    x = np.linspace(low - margin, high + margin, 200)
    axes.fill_between(
        x, _density(training, x), color=mix_with_white(TRAINING_COLOUR, 0.45), linewidth=0, label="training"
    )
    axes.plot(x, _density(window, x), color=WINDOW_COLOUR, label="window")
    axes.set_yticks([])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _density(values: Floats, x: Floats) -> Floats:
    """Density divided by its maximum. Samples with a single value have no density and get a peak there."""
    if len(values) < 2 or not np.ptp(values) > 0:
        peak = np.zeros_like(x)
        peak[np.abs(x - values[0]).argmin()] = 1.0
        return peak
    density: Floats = gaussian_kde(values)(x)
    scaled: Floats = density / density.max()
    return scaled


def _set_title(axes: Axes, test: DriftTest) -> None:
    axes.set_title(
        f"{_label(test)}: {test.difference.distance:.2f}{'  drift' if test.drifted else ''}",
        fontsize=10.5, loc="left", color=VERMILLION if test.drifted else INK,
        fontweight="bold" if test.drifted else "normal",
    )  # fmt: skip


def _label(test: DriftTest) -> str:
    return test.name.replace("_", " ")


def _describe_rows(comparison: WindowComparison) -> str:
    return f"{comparison.rows:,} rows, {comparison.version_rows:,} of this version"

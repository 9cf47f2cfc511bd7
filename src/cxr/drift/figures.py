"""Figures of a window: what differs and by how much, films, embeddings, scores, and how it went day by day."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from cxr.drift.findings import FILMS, Finding, WindowComparison
from cxr.drift.rows import by_day, embeddings, statistic
from cxr.evaluation.validation_scores import ValidationScores
from cxr.inference.reference.reference import Reference
from cxr.plots.style import BLUE, FAINT, GREY, INK, ORANGE, VERMILLION, Caption, faded, framed

Floats = NDArray[np.float64]

COLUMNS = 3
TRAINING, WINDOW = GREY, ORANGE
"""Colours of what was, and of what is."""
DAYS = 10
"""Most days that are named below a plot."""
POINTS = 600
"""Most points of a sample in a scatter plot."""


def distances(comparison: WindowComparison, caption: Caption) -> Figure:
    """Every comparison with its distance and its limit.

    Args:
        comparison: what was found; at least one comparison.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    findings = sorted(comparison.findings, key=lambda one: one.difference.distance / one.limit)
    size = (8.4, 1.9 + 0.34 * len(findings))
    with framed("What differs, and by how much?", caption, _rows(comparison), size=size) as figure:
        axes = figure.add_subplot()
        for place, one in enumerate(findings):
            colour = VERMILLION if one.drifted else BLUE
            axes.plot([0, one.difference.distance], [place, place], color=faded(colour), linewidth=3)
            axes.plot(
                one.difference.distance, place, color=colour, marker="D" if one.drifted else "o", markersize=7,
                linestyle="none",
            )  # fmt: skip
            axes.plot([one.limit, one.limit], [place - 0.38, place + 0.38], color=INK, linewidth=1.6)
        axes.set_yticks(range(len(findings)), [_words(one) for one in findings])
        axes.set(xlabel="distance, 0 to 1; the upright line is the limit", xlim=(0, None))
        axes.grid(axis="y", visible=False)
        handles = [
            axes.plot([], [], color=colour, marker=marker, linestyle="none", label=label)[0]
            for colour, marker, label in ((VERMILLION, "D", "drift"), (BLUE, "o", "no drift"))
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def films(comparison: WindowComparison, reference: Reference, rows: pd.DataFrame, caption: Caption) -> Figure:
    """Densities of each statistic of films, at training and in the window.

    Args:
        comparison: what was found.
        reference: films of the training.
        rows: rows of the window.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    findings = {one.name: one for one in comparison.findings if one.group == FILMS}
    names = [name for name in reference.STATISTICS if name in findings]
    high = math.ceil(len(names) / COLUMNS)
    answered = rows[rows["refusal"].isna()]
    with framed("Do the films look as at training?", caption, _rows(comparison), (9.4, 1.5 + 2.2 * high)) as figure:
        panels = figure.subplots(high, COLUMNS, squeeze=False)
        for number, axes in enumerate(panels.flat):
            if number >= len(names):
                axes.set_axis_off()
                continue
            name = names[number]
            old = reference.statistics[:, list(reference.STATISTICS).index(name)].astype(np.float64)
            _densities(axes, old, statistic(answered, name))
            _title(axes, findings[name])
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def places(comparison: WindowComparison, reference: Reference, rows: pd.DataFrame, caption: Caption) -> Figure:
    """Embeddings along the two directions in which the films of the training differ most.

    Args:
        comparison: what was found.
        reference: films of the training.
        rows: rows of this version in the window.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    scale = np.where((spread := reference.embeddings.std(axis=0, dtype=np.float64)) > 0, spread, 1.0)
    old = reference.embeddings / scale
    middle = old.mean(axis=0)
    axes_of = np.linalg.svd(old - middle, full_matrices=False)[2][:2]
    new = embeddings(rows, old.shape[1]) / scale
    with framed("Do the films lie where the training's lie?", caption, _rows(comparison), (6.4, 6.2)) as figure:
        axes = figure.add_subplot()
        for points, colour, marker, label in ((old, TRAINING, "o", "training"), (new, WINDOW, "^", "window")):
            some = points[np.linspace(0, len(points) - 1, min(POINTS, len(points))).astype(int)] if len(points) else []
            x, y = axes_of @ (np.reshape(some, (-1, old.shape[1])) - middle).T
            axes.scatter(
                x, y, s=22, color=faded(colour, 0.8), marker=marker, label=label, linewidth=0.4, edgecolor="white"
            )
        axes.set(xlabel="first direction", ylabel="second direction")
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def scores(
    comparison: WindowComparison, validation: ValidationScores, rows: pd.DataFrame, caption: Caption
) -> Figure:  # fmt: skip
    """Histogram of the probabilities, on validation and in the window.

    Args:
        comparison: what was found.
        validation: scores of the validation.
        rows: rows of this version in the window.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    answered = rows[rows["probability"].notna()]
    bins = np.linspace(0, 1, 21).tolist()
    with framed("Are the answers spread as on validation?", caption, _rows(comparison), (8.4, 4.8)) as figure:
        axes = figure.add_subplot()
        for values, style in (
            (validation.probability, {"color": faded(TRAINING, 0.5), "label": "validation"}),
            (
                answered["probability"].to_numpy(np.float64),
                {"color": WINDOW, "histtype": "step", "linewidth": 2.4, "label": "window"},
            ),
        ):
            axes.hist(values, bins=bins, weights=np.full(len(values), 1 / max(1, len(values))), **style)
        axes.axvline(float(answered["threshold"].iloc[-1]), color=INK, linestyle=(0, (4, 2)), label="threshold")
        axes.set(xlabel="calibrated probability of pneumonia", ylabel="share of films", xlim=(0, 1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def days(comparison: WindowComparison, reference: Reference | None, rows: pd.DataFrame, caption: Caption) -> Figure:
    """Films, refusals, share of pneumonia and the statistic that differs most, day by day.

    Args:
        comparison: what was found.
        reference: films of the training; None where the version has none.
        rows: rows of the window.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    found = [one for one in comparison.findings if reference is not None and one.name in reference.STATISTICS]
    most = max(found, key=lambda one: one.difference.distance, default=None)
    table = by_day(rows, [most.name] if most else [])
    when = table.index.to_numpy()
    with framed("How did it go, day by day?", caption, _rows(comparison), (9.4, 7.6 if most else 6.0)) as figure:
        panels = figure.subplots(4 if most else 3, 1, sharex=True)
        panels[0].bar(when, table["rows"], width=0.7, color=faded(BLUE), align="center")
        panels[0].set_ylabel("films")
        panels[0].yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        for axes, name, label in ((panels[1], "refused", "refused"), (panels[2], "pneumonia", "pneumonia")):
            axes.vlines(when, table[f"{name}_low"], table[f"{name}_high"], color=faded(ORANGE), linewidth=5)
            axes.plot(when, table[name], color=ORANGE, marker="o", linewidth=1.4)
            before = next((one.before for one in comparison.findings if label in one.name), None)
            if before is not None:
                axes.axhline(before, color=GREY, linestyle=(0, (4, 2)), linewidth=1.4)
            axes.set(ylabel=label, ylim=(-0.03, 1.03))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        if most is not None and reference is not None:
            old = reference.statistics[:, list(reference.STATISTICS).index(most.name)]
            low, middle, high = np.nanquantile(old, (0.05, 0.5, 0.95))
            panels[3].axhspan(low, high, color=FAINT, zorder=0)
            panels[3].axhline(middle, color=GREY, linestyle=(0, (4, 2)), linewidth=1.4)
            panels[3].plot(when, table[most.name], color=ORANGE, marker="o", linewidth=1.4)
            panels[3].set_ylabel(most.name.replace("_", " "))
        shown = table.index[:: math.ceil(len(table) / DAYS)]
        panels[-1].set_xticks(shown.to_numpy(), [f"{day:%d %b}" for day in shown])
        margin = pd.Timedelta(hours=18)
        panels[-1].set_xlim(table.index[0] - margin, table.index[-1] + margin)
        figure.align_ylabels(panels)
    return figure


def _densities(axes: Axes, old: Floats, new: Floats) -> None:
    old, new = old[np.isfinite(old)], new[np.isfinite(new)]
    low, high = np.quantile(np.concatenate([old, new]), (0.002, 0.998))
    margin = 0.06 * (high - low) or 1.0
    x = np.linspace(low - margin, high + margin, 200)
    axes.fill_between(x, _density(old, x), color=faded(TRAINING, 0.45), linewidth=0, label="training")
    axes.plot(x, _density(new, x), color=WINDOW, label="window")
    axes.set_yticks([])
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _density(values: Floats, x: Floats) -> Floats:
    """Density over its largest value; samples of one value have none, and get a line there."""
    if len(values) < 2 or not np.ptp(values) > 0:
        nearest = np.zeros_like(x)
        nearest[np.abs(x - values[0]).argmin()] = 1.0
        return nearest
    density: Floats = gaussian_kde(values)(x)
    scaled: Floats = density / density.max()
    return scaled


def _title(axes: Axes, one: Finding) -> None:
    axes.set_title(
        f"{_words(one)}: {one.difference.distance:.2f}{'  drift' if one.drifted else ''}",
        fontsize=10.5, loc="left", color=VERMILLION if one.drifted else INK,
        fontweight="bold" if one.drifted else "normal",
    )  # fmt: skip


def _words(one: Finding) -> str:
    return one.name.replace("_", " ")


def _rows(comparison: WindowComparison) -> str:
    return f"{comparison.rows:,} rows, {comparison.of_version:,} of this version"

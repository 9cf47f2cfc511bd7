"""Figures of a search: the best value so far, and which values of each parameter did well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from cxr.plots.style import BLUE, GREY, VERMILLION, Caption, faded, framed
from cxr.tuning.report import best_so_far
from cxr.tuning.space import Choices, Range, Space
from cxr.tuning.study import COMPLETE, FAILED, PRUNED

WORDS = {"auroc": "AUROC on validation", "loss": "loss on validation"}
COLUMNS = 3
SPREAD = 0.16
"""Half the width over which trials of one choice are spread, so that they do not hide each other."""


def history(trials: pd.DataFrame, monitor: str, caption: Caption) -> Figure:
    """Every trial's figure in order, with the best so far.

    Args:
        trials: what :func:`cxr.tuning.report.table` gives.
        monitor: ``"auroc"`` or ``"loss"``.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    best = best_so_far(trials, higher=monitor == "auroc")
    with framed("Does the search still find better values?", caption, _detail(trials), size=(8.4, 5.4)) as figure:
        axes = figure.add_subplot()
        _points(axes, trials, trials["trial"].to_numpy(dtype=np.float64))
        if len(best):
            last = trials["trial"].max()
            axes.step([*best.index, last], [*best, best.iloc[-1]], where="post", color=BLUE, label="best so far")
            place = best[best == best.iloc[-1]].index[0]
            _ring(axes, place, best.iloc[-1], f"best: {best.iloc[-1]:.4f} in trial {place}")
        failed = trials[trials["state"] == FAILED]
        for number, place in enumerate(failed["trial"]):
            axes.axvline(
                place, color=VERMILLION, linewidth=1.2, linestyle=(0, (2, 3)), label="_" if number else "failed"
            )
        axes.set(xlabel="trial", ylabel=WORDS[monitor])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _fit(axes, trials, monitor)
        figure.legend(loc="outside lower center", ncols=5, handletextpad=0.4)
    return figure


def slices(trials: pd.DataFrame, space: Space, monitor: str, caption: Caption) -> Figure:
    """One panel per parameter: its values against the figure that they led to.

    Args:
        trials: what :func:`cxr.tuning.report.table` gives.
        space: what was searched.
        monitor: ``"auroc"`` or ``"loss"``.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    columns = min(COLUMNS, len(space))
    rows = -(-len(space) // columns)
    best = best_so_far(trials, higher=monitor == "auroc")
    winner = trials.set_index("trial").loc[best[best == best.iloc[-1]].index[0]] if len(best) else None
    size = (max(6.4, 3.1 * columns), 1.2 + 3.0 * rows)
    with framed("Which values did well?", caption, _detail(trials), size=size) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for number, axes in enumerate(panels.flat):
            if number >= len(space):
                axes.set_axis_off()
                continue
            name, dimension = list(space.items())[number]
            places = _places(axes, trials, name, dimension)
            _points(axes, trials, places)
            if winner is not None:
                row = int(np.flatnonzero(trials["trial"] == winner.name)[0])
                _ring(axes, places[row], float(winner["value"]), "best")
            axes.set_title(name, loc="left", fontsize=11, fontweight="bold")
            if number % columns == 0:
                axes.set_ylabel(WORDS[monitor])
            _fit(axes, trials, monitor)
        entries = {word: handle for axes in panels.flat for handle, word in zip(*axes.get_legend_handles_labels(),
                                                                               strict=True)}  # fmt: skip
        figure.legend([*entries.values()], [*entries], loc="outside lower center", ncols=4, handletextpad=0.4)
    return figure


def _places(axes: Any, trials: pd.DataFrame, name: str, dimension: Choices | Range) -> np.ndarray[Any, Any]:
    """Where each trial stands on the axis of a parameter; the axis is set up for it."""
    if isinstance(dimension, Range):
        if dimension.log:
            axes.set_xscale("log")
            axes.set_xlim(dimension.low / 1.25, dimension.high * 1.25)
            axes.xaxis.set_minor_formatter(NullFormatter())
        elif dimension.whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        return trials[name].to_numpy(dtype=np.float64)
    choices = list(dimension.values)
    axes.set_xticks(range(len(choices)), [_word(choice) for choice in choices])
    axes.set_xlim(-0.5, len(choices) - 0.5)
    places = np.array([choices.index(value) if value in choices else np.nan for value in trials[name]])
    for choice in range(len(choices)):
        chosen = (places == choice) & (trials["state"] == COMPLETE).to_numpy()
        if chosen.any():
            middle = float(trials.loc[chosen, "value"].median())
            axes.hlines(
                middle, choice - 0.3, choice + 0.3, color=faded(BLUE, 0.45), linewidth=4, zorder=1,
                label="median of those trained to their end",
            )  # fmt: skip
    order = np.arange(len(places)) % 5 - 2
    return places + SPREAD * order / 2


def _points(axes: Any, trials: pd.DataFrame, places: np.ndarray[Any, Any]) -> None:
    """Trials trained to their end as dots, those ended early as crosses."""
    for state, words, style in (
        (COMPLETE, "trained to its end", {"marker": "o", "color": faded(BLUE), "edgecolor": "white", "s": 52}),
        (PRUNED, "ended early", {"marker": "x", "color": GREY, "s": 34, "linewidth": 1.4}),
    ):
        rows = (trials["state"] == state).to_numpy()
        if rows.any():
            axes.scatter(places[rows], trials.loc[rows, "value"], zorder=3, label=words, **style)


def _ring(axes: Any, x: float, y: float, words: str) -> None:
    axes.scatter([x], [y], s=130, facecolor="none", edgecolor=VERMILLION, linewidth=2.2, zorder=5, label=words)


def _fit(axes: Any, trials: pd.DataFrame, monitor: str) -> None:
    """Leave out far outliers on the bad side, which would press everything else together."""
    values = trials["value"].dropna().to_numpy(dtype=np.float64)
    if len(values) < 2:
        return
    low, high = float(values.min()), float(values.max())
    middle = float(np.median(values))
    if monitor == "auroc":
        low = max(low, middle - 4 * (high - middle)) if high > middle else low
    else:
        high = min(high, middle + 4 * (middle - low)) if middle > low else high
    space = 0.08 * (high - low) or 0.01
    axes.set_ylim(low - space, high + space)
    outside = int(((values < low) | (values > high)).sum())
    if outside and axes.get_subplotspec().is_first_row() and axes.get_subplotspec().is_first_col():
        down = monitor == "auroc"
        axes.text(0.02, 0.02 if down else 0.98, f"{outside} {'below' if down else 'above'}", fontsize=9, color=GREY,
                  transform=axes.transAxes, va="bottom" if down else "top")  # fmt: skip


def _detail(trials: pd.DataFrame) -> str:
    counts = trials["state"].value_counts()
    words = [f"{counts[state]} {name}" for state, name in ((PRUNED, "ended early"), (FAILED, "failed"))
             if state in counts]  # fmt: skip
    return ", ".join([f"{int(counts[counts.index != 'killed'].sum())} trials", *words])


def _word(choice: Any) -> str:
    if isinstance(choice, bool):
        return str(choice).lower()
    return "null" if choice is None else str(choice).replace("_", "\n")

"""Plots of a hyperparameter search: the best value so far, and the values of each parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from cxr.plots.style import BLUE, GREY, VERMILLION, Caption, mix_with_white, titled_figure
from cxr.training.plan import Monitor, higher_is_better
from cxr.tuning.report import best_so_far
from cxr.tuning.space import Choices, Range, Space
from cxr.tuning.study import COMPLETE, FAILED, PRUNED

MONITOR_TITLES: dict[Monitor, str] = {
    "auroc": "AUROC on validation",
    "loss": "loss on validation",
    "stressed_auroc": "AUROC on changed validation images",
    "stressed_loss": "loss on changed validation images",
}
COLUMNS = 3
SPREAD = 0.16
"""Half the width over which trials with the same choice are spread, so that they do not cover each other."""


def plot_search_history(trials: pd.DataFrame, monitor: Monitor, caption: Caption) -> Figure:
    """Plot the result of every trial in order, with the best so far.

    Args:
        trials: the result of :func:`cxr.tuning.report.trials_table`.
        monitor: the validation metric that decides.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    best = best_so_far(trials, higher=higher_is_better(monitor))
    with titled_figure(
        "Does the search still find better values?", caption, _describe_trials(trials), size=(8.4, 5.4)
    ) as figure:
        axes = figure.add_subplot()
        _plot_trials(axes, trials, trials["trial"].to_numpy(dtype=np.float64))
        if len(best):
            last = trials["trial"].max()
            axes.step([*best.index, last], [*best, best.iloc[-1]], where="post", color=BLUE, label="best so far")
            best_trial = best[best == best.iloc[-1]].index[0]
            _mark_best(axes, best_trial, best.iloc[-1], f"best: {best.iloc[-1]:.4f} in trial {best_trial}")
        failed = trials[trials["state"] == FAILED]
        for number, trial in enumerate(failed["trial"]):
            axes.axvline(
                trial, color=VERMILLION, linewidth=1.2, linestyle=(0, (2, 3)), label="_" if number else "failed"
            )
        axes.set(xlabel="trial", ylabel=MONITOR_TITLES[monitor])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _limit_y_axis(axes, trials, monitor)
        figure.legend(loc="outside lower center", ncols=5, handletextpad=0.4)
    return figure


def plot_parameter_slices(trials: pd.DataFrame, space: Space, monitor: Monitor, caption: Caption) -> Figure:
    """Plot the result of every trial against the values of each parameter, one panel per parameter.

    Args:
        trials: the result of :func:`cxr.tuning.report.trials_table`.
        space: the search space.
        monitor: the validation metric that decides.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    columns = min(COLUMNS, len(space))
    rows = -(-len(space) // columns)
    best = best_so_far(trials, higher=higher_is_better(monitor))
    winner = trials.set_index("trial").loc[best[best == best.iloc[-1]].index[0]] if len(best) else None
    size = (max(6.4, 3.1 * columns), 1.2 + 3.0 * rows)
    with titled_figure("Which values did well?", caption, _describe_trials(trials), size=size) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for number, axes in enumerate(panels.flat):
            if number >= len(space):
                axes.set_axis_off()
                continue
            name, dimension = list(space.items())[number]
            positions = _set_up_axis(axes, trials, name, dimension)
            _plot_trials(axes, trials, positions)
            if winner is not None:
                row = int(np.flatnonzero(trials["trial"] == winner.name)[0])
                _mark_best(axes, positions[row], float(winner["value"]), "best")
            axes.set_title(name, loc="left", fontsize=11, fontweight="bold")
            if number % columns == 0:
                axes.set_ylabel(MONITOR_TITLES[monitor])
            _limit_y_axis(axes, trials, monitor)
        entries = {
            label: handle
            for axes in panels.flat
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend([*entries.values()], [*entries], loc="outside lower center", ncols=4, handletextpad=0.4)
    return figure


def _set_up_axis(axes: Any, trials: pd.DataFrame, name: str, dimension: Choices | Range) -> np.ndarray[Any, Any]:
    """Set up the axis of a parameter, and return the position of each trial on it."""
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
    axes.set_xticks(range(len(choices)), [_choice_label(choice) for choice in choices])
    axes.set_xlim(-0.5, len(choices) - 0.5)
    positions = np.array([choices.index(value) if value in choices else np.nan for value in trials[name]])
    for choice in range(len(choices)):
        of_choice = (positions == choice) & (trials["state"] == COMPLETE).to_numpy()
        if of_choice.any():
            median = float(trials.loc[of_choice, "value"].median())
            axes.hlines(
                median, choice - 0.3, choice + 0.3, color=mix_with_white(BLUE, 0.45), linewidth=4, zorder=1,
                label="median of those trained to their end",
            )  # fmt: skip
    offsets = np.arange(len(positions)) % 5 - 2
    return positions + SPREAD * offsets / 2


def _plot_trials(axes: Any, trials: pd.DataFrame, positions: np.ndarray[Any, Any]) -> None:
    """Plot completed trials as dots, and trials that were ended early as crosses."""
    for state, label, style in (
        (COMPLETE, "trained to its end", {"marker": "o", "color": mix_with_white(BLUE), "edgecolor": "white", "s": 52}),
        (PRUNED, "ended early", {"marker": "x", "color": GREY, "s": 34, "linewidth": 1.4}),
    ):
        rows = (trials["state"] == state).to_numpy()
        if rows.any():
            axes.scatter(positions[rows], trials.loc[rows, "value"], zorder=3, label=label, **style)


def _mark_best(axes: Any, x: float, y: float, label: str) -> None:
    axes.scatter([x], [y], s=130, facecolor="none", edgecolor=VERMILLION, linewidth=2.2, zorder=5, label=label)


def _limit_y_axis(axes: Any, trials: pd.DataFrame, monitor: Monitor) -> None:
    """Cut off far outliers on the bad side, which would compress all other points."""
    values = trials["value"].dropna().to_numpy(dtype=np.float64)
    if len(values) < 2:
        return
    low, high = float(values.min()), float(values.max())
    median = float(np.median(values))
    if higher_is_better(monitor):
        low = max(low, median - 4 * (high - median)) if high > median else low
    else:
        high = min(high, median + 4 * (median - low)) if median > low else high
    margin = 0.08 * (high - low) or 0.01
    axes.set_ylim(low - margin, high + margin)
    outside = int(((values < low) | (values > high)).sum())
    if outside and axes.get_subplotspec().is_first_row() and axes.get_subplotspec().is_first_col():
        y, side, alignment = (0.02, "below", "bottom") if higher_is_better(monitor) else (0.98, "above", "top")
        axes.text(0.02, y, f"{outside} {side}", fontsize=9, color=GREY, transform=axes.transAxes, va=alignment)


def _describe_trials(trials: pd.DataFrame) -> str:
    counts = trials["state"].value_counts()
    notes = [f"{counts[state]} {name}" for state, name in ((PRUNED, "ended early"), (FAILED, "failed"))
             if state in counts]  # fmt: skip
    return ", ".join([f"{int(counts[counts.index != 'killed'].sum())} trials", *notes])


def _choice_label(choice: Any) -> str:
    if isinstance(choice, bool):
        return str(choice).lower()
    return "null" if choice is None else str(choice).replace("_", "\n")

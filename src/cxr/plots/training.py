"""Plot of a training: loss and measures per epoch."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.plots.style import BLUE, GREY, VERMILLION, Caption, titled_figure

PANELS = (
    ("loss", "loss"),
    ("mean_average_precision", "mean average precision"),
    ("accuracy", "accuracy"),
    ("auroc", "AUROC"),
    ("f1", "F1"),
)
"""Column of the history and title of its panel; there are at most four, because no network has all of them."""


def plot_training(history: pd.DataFrame, best_epoch: int | None, caption: Caption) -> Figure:
    """Plot loss and measures per epoch, on train and validation, and mark the epoch whose weights were kept.

    Args:
        history: one row per epoch: epoch, the columns of :data:`PANELS` that the network has, and the same with
            ``val_``.
        best_epoch: epoch whose weights were kept; None if unknown.
        caption: what the figure is about.

    Returns:
        The figure, without the measures that the history lacks.
    """
    panels = [(name, label) for name, label in PANELS if name in history or f"val_{name}" in history]
    last = int(history["epoch"].max())
    detail = f"{last} epochs" + (f", weights of epoch {best_epoch} kept" if best_epoch else "")
    with titled_figure("How did training go?", caption, detail, size=(8.4, 6.0)) as figure:
        grid = figure.add_gridspec(2, 2)
        for position, (name, label) in enumerate(panels):
            axes = figure.add_subplot(grid[position // 2, position % 2])
            marker = "o" if last <= 12 else ""
            for column, colour, split in ((name, GREY, "train"), (f"val_{name}", BLUE, "validation")):
                if column in history:
                    axes.plot(history["epoch"], history[column], color=colour, marker=marker, markersize=4, label=split)
            if best_epoch:
                axes.axvline(best_epoch, color=VERMILLION, linewidth=1.2, linestyle=(0, (3, 3)), zorder=1)
            axes.set_title(label, loc="left", fontsize=11, fontweight="bold")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
            axes.set_xlim(min(0.5, last - 0.5), last + 0.5)
            if name == "loss":
                axes.margins(y=0.08)
                axes.set_ylim(bottom=0)
                axes.legend(loc="best")
            if position + 2 >= len(panels):  # nothing is below it
                axes.set_xlabel("epoch")
    return figure

"""Figures of how a classifier came about and of single images: training, scores, the worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.special import logit

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.evaluation.mistakes import FALSE_ALARM, MISSED
from cxr.plots.style import BLUE, COLOURS, GREY, INK, VERMILLION, Caption, faded, framed, images_of, percent

PANELS = (("loss", "loss"), ("accuracy", "accuracy"), ("auroc", "AUROC"), ("f1", "F1"))
SCORE_LIMIT = 9.0
"""Scores are drawn on a logit axis, which ends at odds of e^9, about 1 in 8,000."""


def training(history: pd.DataFrame, best_epoch: int | None, caption: Caption) -> Figure:
    """Loss and measures over the epochs, on train and validation, with the epoch whose weights were kept.

    Args:
        history: one row per epoch: epoch, loss, accuracy, auroc, f1 and the same with ``val_``.
        best_epoch: epoch whose weights were kept; None if unknown.
        caption: what the figure is about.

    Returns:
        The figure; a measure that the history lacks is left out.
    """
    panels = [(name, label) for name, label in PANELS if name in history or f"val_{name}" in history]
    last = int(history["epoch"].max())
    detail = f"{last} epochs" + (f", weights of epoch {best_epoch} kept" if best_epoch else "")
    with framed("How did training go?", caption, detail, size=(8.4, 6.0)) as figure:
        grid = figure.add_gridspec(2, 2)
        for position, (name, label) in enumerate(panels):
            axes = figure.add_subplot(grid[position // 2, position % 2])
            marker = "o" if last <= 12 else ""
            for column, colour, words in ((name, GREY, "train"), (f"val_{name}", BLUE, "validation")):
                if column in history:
                    axes.plot(
                        history["epoch"],
                        history[column],
                        color=colour,
                        marker=marker,
                        markersize=4,
                        label=words,
                    )
            if best_epoch:
                axes.axvline(best_epoch, color=VERMILLION, linewidth=1.2, linestyle=(0, (3, 3)), zorder=1)
            axes.set_title(label, loc="left", fontsize=11, fontweight="bold")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
            axes.set_xlim(min(0.5, last - 0.5), last + 0.5)
            if name == "loss":
                axes.set_ylim(bottom=0)
                axes.legend(loc="upper right")
            if position >= 2:
                axes.set_xlabel("epoch")
    return figure


def scores(predictions: pd.DataFrame, test: Mapping[str, Any], threshold: float, caption: Caption) -> Figure:
    """Calibrated probabilities of the test images per subtype, with the threshold.

    Args:
        predictions: rows with split, subtype, label and probability.
        test: the test entry of the evaluation's report.
        threshold: the operating point.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    rows = predictions[predictions["split"] == "test"]
    kinds = [(name, part) for name, part in rows.groupby("subtype", sort=False) if len(part)]
    kinds.sort(key=lambda kind: (kind[1]["label"].iloc[0] != NORMAL, str(kind[0])))
    edges = np.linspace(-SCORE_LIMIT, SCORE_LIMIT, 73)
    cut = float(np.clip(logit(np.clip(threshold, 1e-9, 1 - 1e-9)), -SCORE_LIMIT, SCORE_LIMIT))
    with framed(
        "How sure is it, and of what?", caption, images_of(test), size=(8.4, 1.6 + 1.45 * len(kinds))
    ) as figure:
        panels = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, part) in zip(panels, kinds, strict=True):
            sick = part["label"].iloc[0] == PNEUMONIA
            called = (part["probability"] >= threshold).to_numpy()
            values = np.clip(logit(np.clip(part["probability"], 1e-9, 1 - 1e-9)), -SCORE_LIMIT, SCORE_LIMIT).to_numpy()
            right = called == sick
            colour = COLOURS[PNEUMONIA if sick else NORMAL]
            axes.hist([values[right], values[~right]], bins=edges.tolist(), stacked=True, color=[faded(colour), INK])
            axes.axvline(cut, color=INK, linewidth=1.4)
            axes.set_yscale("symlog", linthresh=10)
            axes.set_ylim(0, max(10, 1.4 * np.histogram(values, edges)[0].max()))
            axes.yaxis.set_major_locator(mpl.ticker.FixedLocator([0, 5, 10, 30, 100, 300, 1000]))
            axes.yaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
            axes.set_ylabel("images", fontsize=9.5)
            axes.set_title(
                f"{name}: {len(part)} images, {percent(float(right.mean()))} on the right side",
                loc="left",
                fontsize=11,
                fontweight="bold",
                color=colour,
            )
        ticks = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
        panels[-1].set_xticks([float(logit(tick)) for tick in ticks], [f"{100 * tick:g} %" for tick in ticks])
        panels[-1].set_xlabel(f"calibrated probability of pneumonia (line: threshold {threshold:.3f}; black: wrong)")
    return figure


def mistakes(
    sheet: pd.DataFrame, images: Sequence[NDArray[np.uint8]], test: Mapping[str, Any], caption: Caption
) -> Figure:
    """The most confident errors: pneumonia that was missed above, false alarms below.

    Args:
        sheet: what :func:`cxr.evaluation.mistakes.worst_mistakes` gives.
        images: its pictures, grey, in the same order.
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
    with framed("The most confident mistakes", caption, detail, size=(2.0 * columns, 6.6)) as figure:
        for band, (kind, words, colour) in zip(
            np.ravel(np.asarray(figure.subfigures(2, 1), dtype=object)), rows, strict=True
        ):
            band.suptitle(words, x=0.015, ha="left", fontsize=12, fontweight="bold", color=colour)
            panels = band.subplots(1, columns)
            chosen = np.flatnonzero((sheet["kind"] == kind).to_numpy()).tolist()
            for axes in panels:
                axes.set_axis_off()
            for axes, position in zip(panels, chosen, strict=False):
                row = sheet.iloc[position]
                axes.imshow(images[position], cmap="gray", vmin=0, vmax=255, aspect="equal")
                axes.set_title(percent(float(row["probability"])), fontsize=12, fontweight="bold", color=INK)
                axes.text(
                    0.5,
                    -0.03,
                    _short(str(row["path"])),
                    transform=axes.transAxes,
                    ha="center",
                    va="top",
                    fontsize=7.5,
                    color=GREY,
                )
            if not chosen:
                band.text(0.5, 0.5, "none", ha="center", va="center", fontsize=13, color=GREY)
    return figure


def _short(path: str, width: int = 26) -> str:
    """File name without folders and suffix, broken where it is too long for its picture."""
    name = path.rpartition("/")[2].rpartition(".")[0]
    return "\n".join(name[start : start + width] for start in range(0, len(name), width))

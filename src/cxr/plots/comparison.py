"""Plots of two models on the same test images: ROC curves, differences and disagreements."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cxr.data.dataset import CLASSES, PNEUMONIA
from cxr.evaluation.comparison import METRIC_TITLES, ModelComparison
from cxr.evaluation.curves import roc_curve
from cxr.evaluation.metrics import sensitivity_at
from cxr.plots.style import BLUE, COLOURS, GREY, INK, ORANGE, VERMILLION, Caption, titled_figure, use_percent

MARKERS = dict(zip(CLASSES, ("o", "^"), strict=True))


def plot_roc_pair(test: pd.DataFrame, comparison: ModelComparison, caption: Caption) -> Figure:
    """Plot the ROC curves of both models.

    Args:
        test: one row per test image with label, ``ours`` and ``theirs`` (probabilities).
        comparison: the comparison.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    is_pneumonia = (test["label"] == PNEUMONIA).to_numpy().astype(int)
    detail = f"{comparison.images} test images of {comparison.patients} patients"
    with titled_figure("How well does each tell the classes apart?", caption, detail) as figure:
        axes = figure.add_subplot()
        inset = axes.inset_axes((0.40, 0.27, 0.57, 0.45))
        lines = (
            ("theirs", f"champion, {comparison.theirs}", comparison.test["auroc"].theirs, ORANGE, (0, (4, 2))),
            ("ours", f"challenger, {comparison.ours}", comparison.test["auroc"].ours, BLUE, "solid"),
        )
        for column, name, area, colour, dashes in lines:
            curve = roc_curve(is_pneumonia, test[column])
            for panel in (axes, inset):
                panel.plot(
                    curve["false_positive_rate"],
                    curve["sensitivity"],
                    color=colour,
                    linestyle=dashes,
                    label=f"{name}: AUROC {area:.4f}",
                )
        for panel in (axes, inset):
            use_percent(panel.xaxis, panel.yaxis)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 3)))
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set(xlabel="normal images called pneumonia (1 − specificity)", ylabel="pneumonia found (sensitivity)")
        floor = min(float(sensitivity_at(0.9, is_pneumonia, test[column])) for column in ("ours", "theirs"))
        inset.set(xlim=(0, 0.25), ylim=(max(0.0, floor - 0.1), 1.002))
        inset.tick_params(labelsize=8.5)
        axes.indicate_inset_zoom(inset, edgecolor=GREY, alpha=0.4)
        axes.legend(loc="lower right", handlelength=2.2, borderaxespad=0.2)
    return figure


def plot_differences(comparison: ModelComparison, margins: dict[str, float], caption: Caption) -> Figure:
    """Plot the differences on test with their intervals, and how much the challenger may lose.

    Args:
        comparison: the comparison.
        margins: metric to the largest loss that is accepted, at least 0.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    detail = f"{100 * comparison.confidence:g} % intervals over {comparison.patients} patients"
    with titled_figure("Is the challenger worse on test?", caption, detail, size=(6.4, 3.6)) as figure:
        panels = figure.subplots(len(margins), 1, squeeze=False)[:, 0]
        for axes, (name, margin) in zip(panels, margins.items(), strict=True):
            metric = comparison.test[name]
            not_worse = metric.low >= -margin
            colour = BLUE if not_worse else VERMILLION
            axes.axvspan(-1, -margin, color=VERMILLION, alpha=0.10, linewidth=0)
            axes.axvline(-margin, color=VERMILLION, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.axvline(0, color=GREY, linewidth=1)
            axes.plot([metric.low, metric.high], [0, 0], color=colour, linewidth=4, solid_capstyle="butt")
            axes.plot(metric.difference, 0, "o", color=colour, markersize=9, markeredgecolor="white")
            reach = 1.3 * max(abs(metric.low), abs(metric.high), margin, 1e-3)
            axes.set(xlim=(-reach, reach), ylim=(-1, 1), yticks=[])
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
            verdict = "not worse" if not_worse else "may be worse"
            title = (
                f"{METRIC_TITLES[name]}: {metric.difference:+.4f} ({metric.low:+.4f} to {metric.high:+.4f}), {verdict}"
            )
            axes.set_title(title, fontsize=10, loc="left", color=INK)
        panels[-1].set_xlabel("challenger minus champion; red: refused if the bar reaches in")
    return figure


def plot_disagreements(test: pd.DataFrame, comparison: ModelComparison, caption: Caption) -> Figure:
    """Plot the probabilities of both models for each test image.

    Args:
        test: one row per test image with label, ``ours`` and ``theirs`` (probabilities).
        comparison: the comparison.
        caption: what the figure is about.

    Returns:
        The figure.
    """
    with titled_figure("Where do the two disagree?", caption, f"{comparison.images} test images") as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 3)))
        for label in CLASSES:
            part = test[test["label"] == label]
            axes.plot(
                part["theirs"],
                part["ours"],
                MARKERS[label],
                color=COLOURS[label],
                markersize=4.5,
                alpha=0.55,
                markeredgewidth=0,
                label=f"{label} ({len(part)})",
            )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set(
            xlabel=f"probability by the champion, {comparison.theirs}",
            ylabel=f"probability by the challenger, {comparison.ours}",
        )
        axes.legend(loc="lower right", handletextpad=0.2)
    return figure

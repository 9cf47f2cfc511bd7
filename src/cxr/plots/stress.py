"""Plot of the acquisition stress test: every change with its figures on test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxr.evaluation.metrics import METRICS
from cxr.evaluation.stress_test import STRESS_MEASURES, UNCHANGED
from cxr.plots.style import BLUE, GREY, INK, VERMILLION, Caption, describe_test_images, titled_figure, use_percent


def plot_stress(stress: Mapping[str, Any], threshold: float, caption: Caption) -> Figure:
    """Plot AUROC, sensitivity and specificity under each acquisition change, beside those of the unchanged images.

    Args:
        stress: the entry of the test images in the result of :func:`cxr.evaluation.stress_test.measure_stress`.
        threshold: the operating point.
        caption: what the figure is about.

    Returns:
        The figure. The lowest figure of each measure is red; the dashed line is that of the unchanged images.
    """
    entries = [{"key": UNCHANGED, "title": "Unchanged", **stress[UNCHANGED]}, *stress["changes"]]
    positions = np.arange(len(entries))
    detail = f"{describe_test_images(stress)}, threshold {threshold:.3f}"
    with titled_figure("Does it depend on how images are acquired?", caption, detail, size=(10.2, 7.2)) as figure:
        panels = figure.subplots(1, len(STRESS_MEASURES), sharey=True)
        for axes, measure in zip(panels, STRESS_MEASURES, strict=True):
            unchanged = entries[0][measure]["value"]
            if np.isfinite(unchanged):
                axes.axvline(unchanged, color=GREY, linewidth=1, linestyle=(0, (4, 4)))
            for position, entry in zip(positions, entries, strict=True):
                interval = entry[measure]
                colour = VERMILLION if entry["key"] == stress["worst"][measure]["change"] else BLUE
                colour = INK if entry["key"] == UNCHANGED else colour
                axes.plot(
                    [interval["low"], interval["high"]], [position, position], color=colour, linewidth=1.6, alpha=0.5
                )
                axes.plot(
                    interval["value"], position, "o", color=colour, markersize=6.5, markeredgecolor="white", zorder=4
                )
            axes.set_title(METRICS[measure].title, loc="left", fontsize=11, fontweight="bold")
            axes.set_ylim(len(entries) - 0.4, -0.6)
            if METRICS[measure].is_share:
                use_percent(axes.xaxis)
        panels[0].set_yticks(positions, [entry["title"] for entry in entries], fontsize=9.5, color=INK)
    return figure

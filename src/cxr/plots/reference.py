"""Plot of the distances of images from the training images of a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from cxr.data.dataset import DatasetCard
from cxr.inference.reference.building import ReferenceCheck
from cxr.plots.style import BLUE, GREY, INK, ORANGE, VERMILLION, Caption, format_percent, titled_figure


def plot_reference_distances(splits: Mapping[str, Sequence[ReferenceCheck]], card: DatasetCard) -> Figure:
    """Plot the histogram of the distances of images that the reference was not fitted on, with the limit.

    Args:
        splits: name of a split to the checks of its images.
        card: the data set's metadata.

    Returns:
        The figure.
    """
    images = sum(map(len, splits.values()))
    refused = sum(check.refusal is not None for checks in splits.values() for check in checks)
    caption = Caption("reference", card.name, "films of other patients", card.kind == "phantom")
    detail = f"{refused} of {images} would get no answer ({format_percent(refused / images)})"
    with titled_figure("Would chest films be refused?", caption, detail, size=(8.4, 4.6)) as figure:
        axes = figure.add_subplot()
        largest = max([1.6, *(check.distance for checks in splits.values() for check in checks)])
        edges = np.linspace(0, 1.05 * largest, 43)
        for (name, checks), colour, line in zip(splits.items(), (BLUE, ORANGE), ("-", "--"), strict=False):
            counts, _ = np.histogram([check.distance for check in checks], edges)
            axes.stairs(counts / max(1, len(checks)), edges, color=colour, linewidth=2.2, linestyle=line, label=name)
        axes.axvline(1, color=VERMILLION, linewidth=1.8)
        axes.annotate(
            "no answer beyond", (1, 0.97), xycoords=("data", "axes fraction"), xytext=(6, 0),
            textcoords="offset points", va="top", color=INK,
        )  # fmt: skip
        axes.set(xlabel="distance from the training films (limit = 1)", ylabel="share of films", xlim=(0, edges[-1]))
        axes.yaxis.set_major_formatter(lambda value, _: format_percent(value))
        axes.tick_params(colors=GREY)
        axes.legend(loc="upper right")
    return figure

"""How far films lie from the training films, as they are and shown in other ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from cxr.data.dataset import DatasetCard
from cxr.inference.reference.fitting import Judged
from cxr.plots.style import BLUE, GREY, INK, ORANGE, VERMILLION, Caption, framed, percent


def distances(parts: Mapping[str, Sequence[Judged]], card: DatasetCard) -> Figure:
    """Histogram of the distances of films that the reference has not seen, with the limit.

    Args:
        parts: name of a part of the split to what the check said of its films.
        card: the data set's card.

    Returns:
        The figure.
    """
    films = sum(map(len, parts.values()))
    refused = sum(film.refusal is not None for part in parts.values() for film in part)
    caption = Caption("reference", card.name, "films of other patients", card.kind == "phantom")
    detail = f"{refused} of {films} would get no answer ({percent(refused / films)})"
    with framed("Would chest films be refused?", caption, detail, size=(8.4, 4.6)) as figure:
        axes = figure.add_subplot()
        far = max([1.6, *(film.distance for part in parts.values() for film in part)])
        edges = np.linspace(0, 1.05 * far, 43)
        for (name, part), colour, line in zip(parts.items(), (BLUE, ORANGE), ("-", "--"), strict=False):
            counts, _ = np.histogram([film.distance for film in part], edges)
            axes.stairs(counts / max(1, len(part)), edges, color=colour, linewidth=2.2, linestyle=line, label=name)
        axes.axvline(1, color=VERMILLION, linewidth=1.8)
        axes.annotate(
            "no answer beyond", (1, 0.97), xycoords=("data", "axes fraction"), xytext=(6, 0),
            textcoords="offset points", va="top", color=INK,
        )  # fmt: skip
        axes.set(xlabel="distance from the training films (limit = 1)", ylabel="share of films", xlim=(0, edges[-1]))
        axes.yaxis.set_major_formatter(lambda value, _: percent(value))
        axes.tick_params(colors=GREY)
        axes.legend(loc="upper right")
    return figure

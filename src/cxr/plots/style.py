"""House style of the figures: readable at half size and safe for colour-blind readers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.models.metadata import ModelCard

BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
COLOURS = {NORMAL: BLUE, PNEUMONIA: VERMILLION}
"""Okabe and Ito's palette; blue is healthy, vermillion is pneumonia, in every figure of the project."""

INK, GREY, FAINT = "#222222", "#6B6B6B", "#E3E3E3"
DPI = 150
HEADER_INCHES = 0.82

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.linewidth": 2.2,
}


@dataclass(frozen=True)
class Caption:
    """What a figure is about, written under its title.

    Attributes:
        model: name of the model.
        dataset: name of the data set.
        protocol: split protocol.
        phantom: whether the images are drawn phantoms, which the figure then says in colour.
    """

    model: str
    dataset: str
    protocol: str
    phantom: bool

    @classmethod
    def of(cls, card: ModelCard) -> Caption:
        """Caption for figures of a trained model.

        Args:
            card: the model's card.

        Returns:
            The caption.
        """
        return cls(card.model, card.dataset["name"], f"{card.split_protocol} split", card.dataset_kind == "phantom")


@contextmanager
def framed(title: str, caption: Caption, detail: str, size: tuple[float, float] = (6.4, 6.0)) -> Iterator[Figure]:
    """Open a figure with title and caption; the space under them is left to the caller.

    Args:
        title: what the figure answers, in words.
        caption: what it is about.
        detail: one more fact for the caption.
        size: width and height in inches.

    Yields:
        The figure, in the house style while the block lasts.
    """
    with mpl.rc_context(STYLE):
        height = size[1]
        space = ConstrainedLayoutEngine(rect=(0.005, 0.005, 0.99, 0.99 - HEADER_INCHES / height))
        figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout=space)
        FigureCanvasAgg(figure)
        figure.text(0.18 / size[0], 1 - 0.15 / height, title, fontsize=14, fontweight="bold", va="top")
        words = f"{caption.model}  ·  {caption.dataset}, {caption.protocol}  ·  {detail}"
        figure.text(0.18 / size[0], 1 - 0.46 / height, words, fontsize=9.5, color=GREY, va="top")
        if caption.phantom:
            figure.text(
                1 - 0.18 / size[0],
                1 - 0.16 / height,
                "drawn phantoms",
                fontsize=9.5,
                color="white",
                fontweight="bold",
                va="top",
                ha="right",
                bbox={"boxstyle": "round,pad=0.3", "facecolor": PURPLE, "edgecolor": "none"},
            )
        yield figure


def save(figure: Figure, target: Path | BinaryIO) -> None:
    """Write a figure as PNG without date or program version, so that the same figure is the same file.

    Args:
        figure: the figure.
        target: where to write.
    """
    with mpl.rc_context(STYLE):
        figure.savefig(target, dpi=DPI, format="png", metadata={"Software": None})


def data_address(figure: Figure) -> str:
    """Put a figure into the address of an image, for a page that has no files beside it.

    Args:
        figure: the figure.

    Returns:
        ``data:image/png;base64,...``.
    """
    target = io.BytesIO()
    save(figure, target)
    return f"data:image/png;base64,{base64.b64encode(target.getvalue()).decode('ascii')}"


def faded(colour: str, strength: float = 0.55) -> tuple[float, ...]:
    """Mix a colour with white.

    Args:
        colour: any colour that matplotlib knows.
        strength: 1 keeps the colour, 0 gives white.

    Returns:
        Red, green, blue in [0, 1].
    """
    return tuple(1 - strength * (1 - part) for part in mpl.colors.to_rgb(colour))


def percent(value: float) -> str:
    """Format a share.

    Args:
        value: in [0, 1], or NaN.

    Returns:
        For example ``"95.1 %"``, or ``"unknown"``.
    """
    return f"{100 * value:.1f} %" if np.isfinite(value) else "unknown"


def with_interval(entry: Mapping[str, float]) -> str:
    """Format a measure with its interval.

    Args:
        entry: value, low and high.

    Returns:
        For example ``"0.987 (0.981 to 0.992)"``.
    """
    if not np.isfinite(entry["low"]):
        return f"{entry['value']:.3f}" if np.isfinite(entry["value"]) else "unknown"
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"


def bars(entry: Mapping[str, float]) -> list[list[float]] | None:
    """Lengths of error bars.

    Args:
        entry: value, low and high.

    Returns:
        ``[[below], [above]]``, or None if the interval is unknown.
    """
    if not all(np.isfinite(entry[key]) for key in ("value", "low", "high")):
        return None
    return [[max(0.0, entry["value"] - entry["low"])], [max(0.0, entry["high"] - entry["value"])]]


def images_of(test: Mapping[str, Any]) -> str:
    """Say what was measured on.

    Args:
        test: a split's entry of the evaluation's report.

    Returns:
        For example ``"879 test images of 615 patients"``.
    """
    return f"{test['images']} test images of {test['patients']} patients"

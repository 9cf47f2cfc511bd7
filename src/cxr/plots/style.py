"""The common style of all figures: readable at half size, and safe for colour-blind readers."""

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
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.models.metadata import ModelMetadata

BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
COLOURS = {NORMAL: BLUE, PNEUMONIA: VERMILLION}
"""Palette of Okabe and Ito. Blue is normal and vermillion is pneumonia, in every figure of the project."""

INK, GREY, FAINT = "#222222", "#6B6B6B", "#E3E3E3"
DPI = 150
HEADER_INCHES = 0.82
COMPRESSION = 3
"""Level of zlib in PNG files. The usual level 6 takes 0.2 s longer for the figures of an evaluation, and saves 5 %."""

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
    """What a figure is about. It is written under the title.

    Attributes:
        model: name of the model.
        dataset: name of the data set.
        protocol: split protocol.
        phantom: whether the images are drawn phantoms. If so, the figure has a coloured badge.
    """

    model: str
    dataset: str
    protocol: str
    phantom: bool

    @classmethod
    def of(cls, metadata: ModelMetadata) -> Caption:
        """Make the caption for figures of a trained model."""
        dataset, protocol = metadata.dataset["name"], f"{metadata.split_protocol} split"
        return cls(metadata.model, dataset, protocol, metadata.dataset_kind == "phantom")


@contextmanager
def titled_figure(
    title: str, caption: Caption, detail: str, size: tuple[float, float] = (6.4, 6.0)
) -> Iterator[Figure]:
    """Open a figure with title and caption. The caller draws into the space below them.

    Args:
        title: the question that the figure answers.
        caption: what the figure is about.
        detail: a further fact for the caption.
        size: width and height in inches.

    Yields:
        The figure. The common style applies inside the block.
    """
    with mpl.rc_context(STYLE):
        height = size[1]
        space = ConstrainedLayoutEngine(rect=(0.005, 0.005, 0.99, 0.99 - HEADER_INCHES / height))
        figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout=space)
        FigureCanvasAgg(figure)
        figure.text(0.18 / size[0], 1 - 0.15 / height, title, fontsize=14, fontweight="bold", va="top")
        subtitle = f"{caption.model}  ·  {caption.dataset}, {caption.protocol}  ·  {detail}"
        figure.text(0.18 / size[0], 1 - 0.46 / height, subtitle, fontsize=9.5, color=GREY, va="top")
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


def save_png(figure: Figure, target: Path | BinaryIO) -> None:
    """Write a figure as PNG, without date and program version, so that the same figure gives the same file.

    Args:
        figure: the figure.
        target: where to write.
    """
    with mpl.rc_context(STYLE):
        # `figure.savefig` draws twice, the first time only to place things. The canvas draws the same pixels at once.
        canvas, options = FigureCanvasAgg(figure), {"compress_level": COMPRESSION}
        canvas.print_png(target, metadata={"Software": None}, pil_kwargs=options)  # type: ignore[no-untyped-call]


def png_data_uri(figure: Figure) -> str:
    """Encode a figure as a data URI, ``data:image/png;base64,...``, for a page without further files."""
    target = io.BytesIO()
    save_png(figure, target)
    return f"data:image/png;base64,{base64.b64encode(target.getvalue()).decode('ascii')}"


def use_percent(*axes: Axis) -> None:
    """Label axes of shares in percent."""
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def mix_with_white(colour: str, strength: float = 0.55) -> tuple[float, ...]:
    """Mix a colour with white.

    Args:
        colour: a colour that matplotlib knows.
        strength: 1 keeps the colour, 0 gives white.

    Returns:
        Red, green, blue in [0, 1].
    """
    return tuple(1 - strength * (1 - channel) for channel in mpl.colors.to_rgb(colour))


def format_percent(value: float) -> str:
    """Format a share in [0, 1], for example ``"95.1 %"``; NaN gives ``"unknown"``."""
    return f"{100 * value:.1f} %" if np.isfinite(value) else "unknown"


def format_interval(entry: Mapping[str, float]) -> str:
    """Format a measure with its interval.

    Args:
        entry: value, low and high.

    Returns:
        For example ``"0.987 (0.981 to 0.992)"``.
    """
    if not np.isfinite(entry["low"]):
        return f"{entry['value']:.3f}" if np.isfinite(entry["value"]) else "unknown"
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"


def error_bars(entry: Mapping[str, float]) -> list[list[float]] | None:
    """Return the lengths of the error bars of a value.

    Args:
        entry: value, low and high.

    Returns:
        ``[[below], [above]]``, or None if the interval is unknown.
    """
    if not all(np.isfinite(entry[key]) for key in ("value", "low", "high")):
        return None
    return [[max(0.0, entry["value"] - entry["low"])], [max(0.0, entry["high"] - entry["value"])]]


def describe_test_images(test: Mapping[str, Any]) -> str:
    """Describe the test images of a report, for example ``"879 test images of 615 patients"``, if these are known."""
    if "patients" not in test:
        return f"{test['images']} test images"
    return f"{test['images']} test images of {test['patients']} patients"

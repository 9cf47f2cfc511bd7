"""Figures as most tests need them: saved without being drawn.

To draw one takes a third of a second, and evaluations, decisions and reports have several. `drawn_figures` draws them.
An SVG, which is laid out before it is drawn, is saved without either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

DRAW = FigureCanvasAgg.print_png
SAVE = FigureCanvasBase.print_figure


def save_blank(canvas: FigureCanvasAgg, target: Any, **_: Any) -> None:
    """Save a white image of the figure's size."""
    Image.new("L", canvas.get_width_height(), 255).save(target, "png")


def save_without_layout(canvas: FigureCanvasBase, target: Any, **values: Any) -> None:
    """Save an SVG without content; other formats as usual."""
    if values.get("format") == "svg":
        target.write('<svg xmlns="http://www.w3.org/2000/svg"/>')
    else:
        SAVE(canvas, target, **values)


@contextmanager
def blank_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "print_png", save_blank)
        patch.setattr(FigureCanvasBase, "print_figure", save_without_layout)
        yield


@contextmanager
def drawn_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "print_png", DRAW)
        patch.setattr(FigureCanvasBase, "print_figure", SAVE)
        yield

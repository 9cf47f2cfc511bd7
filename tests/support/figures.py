"""Figures as most tests need them: saved without being drawn.

To draw one takes a third of a second, and evaluations, decisions and reports have several. `drawn_figures` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

DRAW = FigureCanvasAgg.print_png


def save_blank(canvas: FigureCanvasAgg, target: Any, **_: Any) -> None:
    """Save a white image of the figure's size."""
    Image.new("L", canvas.get_width_height(), 255).save(target, "png")


@contextmanager
def blank_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "print_png", save_blank)
        yield


@contextmanager
def drawn_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "print_png", DRAW)
        yield

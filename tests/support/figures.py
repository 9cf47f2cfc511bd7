"""Figures as most tests need them: saved without being drawn.

To draw one takes a third of a second, and evaluations, decisions and reports have several. `drawn_figures` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

DRAW = Figure.savefig


def save_blank(figure: Figure, target: Any, **options: Any) -> None:
    """Save a white image of the figure's size; other formats than PNG are drawn."""
    if options.get("format") != "png":
        DRAW(figure, target, **options)
        return
    width, height = (round(options["dpi"] * inches) for inches in figure.get_size_inches())
    Image.new("L", (width, height), 255).save(target, "png")


@contextmanager
def blank_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_blank)
        yield


@contextmanager
def drawn_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", DRAW)
        yield

"""Pictures of one film: as the network sees it, and with what counted laid over it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.app.uploads import shrunk
from cxr.images.recipes import Recipe, apply
from cxr.inference.predictor import PooledPredictor, Predictor

SHOWN = 480
"""Side of a network's picture on the page; its pixels stay visible as squares."""

SPECK = 0.002
"""Share of the film below which a region gets no line."""


@dataclass(frozen=True)
class NetworkView:
    """What one recipe makes of a film.

    Attributes:
        title: size and the networks that take it.
        treatment: what was done to the film, in words.
        planes: one grey picture per plane, ``(side, side)`` uint8.
    """

    title: str
    treatment: str
    planes: tuple[NDArray[np.uint8], ...]


def network_views(predictor: Predictor, grey: NDArray[np.uint8]) -> list[NetworkView]:
    """Prepare a film as the networks get it.

    Args:
        predictor: a network, or an ensemble of several.
        grey: the film, ``(height, width)`` uint8.

    Returns:
        One view per recipe.
    """
    members = predictor.members if isinstance(predictor, PooledPredictor) else (predictor,)
    views = []
    for recipe in predictor.recipes:
        names = ", ".join(one.card.model for one in members if recipe in one.recipes)
        prepared = apply(recipe, grey)
        planes = tuple(_enlarged(prepared[..., plane]) for plane in range(prepared.shape[-1]))
        views.append(NetworkView(f"{names} ({recipe.size} × {recipe.size})", treatment(recipe), planes))
    return views


def treatment(recipe: Recipe) -> str:
    """Say what a recipe does.

    Args:
        recipe: the recipe.

    Returns:
        A sentence.
    """
    done = [
        words
        for applies, words in (
            (recipe.equalise, "contrast evened out over the whole film"),
            (recipe.clahe_clip, "contrast evened out region by region"),
            (recipe.bilateral_diameter, "noise smoothed"),
            (recipe.morphology, "fine specks closed and opened"),
            (True, f"resized to {recipe.size} × {recipe.size} points"),
            (recipe.canny, "edges found as a second picture"),
        )
        if applies
    ]
    sentence = ", ".join(done)
    return f"{sentence[0].upper()}{sentence[1:]}."


def overlay(grey: NDArray[np.uint8], heat: NDArray[np.float32], opacity: float) -> NDArray[np.uint8]:
    """Lay a heat map over a film: what counted more is covered more, and a line goes round what counted most.

    Args:
        grey: the film, ``(height, width)`` uint8.
        heat: the same size, 0 to 1.
        opacity: 0 leaves the film as it is, 1 covers it where the map is 1.

    Returns:
        ``(height, width, 3)`` uint8, red, green, blue, no side above that of a preview.
    """
    film = shrunk(grey)
    height, width = film.shape
    small = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
    # Cividis looks alike with and without colour blindness.
    coloured = cv2.cvtColor(cv2.applyColorMap(np.uint8(255 * small), cv2.COLORMAP_CIVIDIS), cv2.COLOR_BGR2RGB)
    share = (opacity * small)[..., None]
    blended = np.asarray((1 - share) * film[..., None] + share * coloured, dtype=np.uint8)
    if opacity > 0 and small.max() > 0:
        most = np.uint8(small >= 0.5 * small.max())
        lines, _ = cv2.findContours(most, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        thick = max(2, max(height, width) // 250)
        lines = [line for line in lines if cv2.contourArea(line) >= SPECK * height * width]
        cv2.drawContours(blended, lines, -1, (0, 0, 0), 2 * thick, cv2.LINE_AA)
        cv2.drawContours(blended, lines, -1, (255, 255, 255), thick, cv2.LINE_AA)
    return blended


def _enlarged(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = max(1, round(SHOWN / plane.shape[0]))
    return np.kron(plane, np.ones((factor, factor), np.uint8)) if factor > 1 else plane

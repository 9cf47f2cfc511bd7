"""An image as each network of the model gets it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.images.recipes import Recipe, apply_recipe
from cxr.inference.predictor import EnsemblePredictor, Predictor

VIEW_SIDE = 480
"""About the side of a prepared image on the page, in pixels; its own pixels stay visible as squares."""


@dataclass(frozen=True)
class NetworkView:
    """An image prepared by one recipe.

    Attributes:
        title: the networks that take it, and its size.
        description: what the recipe does, in words.
        planes: one grey image per plane, ``(side, side)`` uint8.
    """

    title: str
    description: str
    planes: tuple[NDArray[np.uint8], ...]


def network_views(predictor: Predictor, grey: NDArray[np.uint8]) -> list[NetworkView]:
    """Prepare an image as the networks get it.

    Args:
        predictor: a network, or an ensemble of several.
        grey: the image, ``(height, width)`` uint8.

    Returns:
        One view per recipe.
    """
    members = predictor.members if isinstance(predictor, EnsemblePredictor) else (predictor,)
    views = []
    for recipe in predictor.recipes:
        names = ", ".join(member.metadata.model for member in members if recipe in member.recipes)
        prepared = apply_recipe(recipe, grey)
        planes = tuple(_enlarge(prepared[..., plane]) for plane in range(prepared.shape[-1]))
        views.append(NetworkView(f"{names} ({recipe.size} × {recipe.size})", describe_recipe(recipe), planes))
    return views


def describe_recipe(recipe: Recipe) -> str:
    """Say in a sentence what a recipe does."""
    size = f"{recipe.size} × {recipe.size} points"
    operations = [
        text
        for applies, text in (
            (recipe.fit == "crop", "cut to the square in its middle"),
            (recipe.equalise, "contrast evened out over the whole film"),
            (recipe.clahe_clip, "contrast evened out region by region"),
            (recipe.bilateral_diameter, "noise smoothed"),
            (recipe.morphology, "fine specks closed and opened"),
            (recipe.fit != "pad", f"resized to {size}"),
            (recipe.fit == "pad", f"resized to fit into {size}, black beside it"),
            (recipe.canny, "edges found as a second picture"),
        )
        if applies
    ]
    sentence = ", ".join(operations)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _enlarge(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = max(1, round(VIEW_SIDE / plane.shape[0]))
    return np.kron(plane, np.ones((factor, factor), np.uint8)) if factor > 1 else plane

"""Drawn images: whoever uses an ONNX file compares its answers with the model's on the spot, without patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from cxr.data.phantom.dataset import PhantomPlan, draw_image
from cxr.export.probability_network import PROBABILITY, input_names
from cxr.images.decoding import decode_grey
from cxr.images.recipes import Recipe, apply_recipe
from cxr.inference.predictor import Predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE_IMAGE_FILE, EXAMPLE_FILE = "example.png", "example.npz"


def prepare_drawn_images(recipes: Sequence[Recipe], count: int) -> dict[Recipe, NDArray[np.uint8]]:
    """Draw radiographs of different patients, every second one with pneumonia, and prepare them.

    Args:
        recipes: recipes of a model, each once.
        count: number of images.

    Returns:
        Each recipe to the images ``(count, size, size, planes)`` uint8, all in the same order.
    """
    images = [_draw(("normal", "bacteria")[number % 2], number + 1) for number in range(count)]
    return {recipe: np.stack([apply_recipe(recipe, grey) for grey in images]) for recipe in recipes}


def write_example(folder: Path, predictor: Predictor) -> float:
    """Write the drawn image, and beside it the prepared images and the probability that the model itself computes.

    Args:
        folder: an existing folder.
        predictor: the calibrated model.

    Returns:
        The probability.
    """
    grey = _draw("bacteria", 1)
    cv2.imwrite(str(folder / EXAMPLE_IMAGE_FILE), grey)  # without loss: every reader of PNG gets these grey levels
    prepared = {recipe: apply_recipe(recipe, grey)[None] for recipe in predictor.recipes}
    probability = predictor.calibrated(predictor.predict_raw(prepared))
    names = input_names(predictor.recipes)
    arrays: dict[str, Any] = {name: prepared[recipe] for recipe, name in zip(predictor.recipes, names, strict=True)}
    np.savez_compressed(folder / EXAMPLE_FILE, **{**arrays, PROBABILITY: probability})
    return float(probability[0])


def _draw(subtype: str, patient: int) -> NDArray[np.uint8]:
    """Grey levels of a drawn radiograph, ``(height, width)``."""
    return decode_grey(draw_image(PhantomPlan("test", subtype, patient, 0, "drawn.jpeg"), seed=0).data)

"""A drawn image with its probability: whoever installs an export compares its answer on the spot, without patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxr.data.phantom.dataset import PhantomPlan, draw_image
from cxr.export.probability_network import PROBABILITY, input_names
from cxr.images.decoding import decode_grey
from cxr.images.recipes import apply_recipe
from cxr.inference.predictor import Predictor

EXAMPLE_IMAGE_FILE, EXAMPLE_FILE = "example.png", "example.npz"


def write_example(folder: Path, predictor: Predictor) -> float:
    """Write the drawn image, and beside it the prepared images and the probability that the model itself computes.

    Args:
        folder: an existing folder.
        predictor: the calibrated model.

    Returns:
        The probability.
    """
    grey = decode_grey(draw_image(PhantomPlan("test", "bacteria", 1, 0, "drawn.jpeg"), seed=0).data)
    cv2.imwrite(str(folder / EXAMPLE_IMAGE_FILE), grey)  # without loss: every reader of PNG gets these grey levels
    prepared = {recipe: apply_recipe(recipe, grey)[None] for recipe in predictor.recipes}
    probability = predictor.calibrated(predictor.predict_raw(prepared))
    names = input_names(predictor.recipes)
    arrays: dict[str, Any] = {name: prepared[recipe] for recipe, name in zip(predictor.recipes, names, strict=True)}
    np.savez_compressed(folder / EXAMPLE_FILE, **{**arrays, PROBABILITY: probability})
    return float(probability[0])

"""Preprocessing recipes, one per source system: from a grey radiograph of any size to a small square array.

A recipe is data, a :class:`Recipe`; :func:`apply` carries it out. Training and prediction call the same
function, and the recipe travels with the weights inside the model card.

Two choices hold for all recipes:

* **Grey.** The sources read three colour channels; radiographs are grey, and the few colour files of the
  public set all have the same label, so colour would leak it. One channel is processed and repeated at the
  network's input (:func:`as_input`). Filters that mix channels are corrected for it: a bilateral filter on
  three equal channels sums three equal differences, so it equals the one-channel filter with a third of
  ``sigma colour``.
* **Shrinking averages.** Where a source does not state its interpolation, images are shrunk with
  ``cv2.INTER_AREA`` (every source pixel counts) and enlarged with ``cv2.INTER_LINEAR``. Linear interpolation
  from 1,400 to 64 pixels reads 2 pixels in 22 and folds ribs and noise into false texture (aliasing),
  differently for each scanner's resolution, which a network can learn as a shortcut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ParameterError

_MINIMUM = {
    "size": 8,
    "channels": 1,
    "clahe_clip": 0,
    "clahe_tiles": 1,
    "bilateral_diameter": 0,
    "bilateral_sigma_colour": 0,
    "bilateral_sigma_space": 0,
    "morphology": 0,
    "canny_low": 0,
    "canny_high": 0,
}


@dataclass(frozen=True)
class Recipe:
    """What is done to an image before a network sees it; the order of the fields is the order of the work.

    Attributes:
        name: key in :data:`RECIPES`, also when single values were replaced.
        system: source system, ``"S0"`` to ``"S4"``.
        size: side of the output in pixels; the aspect ratio is not kept, as in the sources.
        channels: channels of the network's input (the stored array keeps one grey plane).
        equalise: whether the histogram is equalised over the whole image (S3).
        clahe_clip: clip limit of contrast-limited adaptive histogram equalisation; 0 leaves it out (S0: 4).
        clahe_tiles: tiles per side of that equalisation.
        bilateral_diameter: diameter of the bilateral filter in pixels; 0 leaves it out (S0: 8).
        bilateral_sigma_colour: its sigma in colour, as the source gives it for three channels.
        bilateral_sigma_space: its sigma in space, in pixels.
        morphology: side of the square kernel of a closing followed by an opening; 0 leaves it out (S3: 5).
        canny: whether Canny edges of the resized image become a second plane (S4's road map).
        canny_low: lower threshold of Canny's hysteresis, grey levels per pixel.
        canny_high: upper threshold.
    """

    name: str
    system: str
    size: int
    channels: int
    equalise: bool = False
    clahe_clip: float = 0.0
    clahe_tiles: int = 4
    bilateral_diameter: int = 0
    bilateral_sigma_colour: float = 80.0
    bilateral_sigma_space: float = 80.0
    morphology: int = 0
    canny: bool = False
    canny_low: float = 50.0
    canny_high: float = 150.0

    def __post_init__(self) -> None:
        problems = [
            f"expected {key} of at least {least}, received {key}={getattr(self, key)}; "
            f"correct it in recipes.{self.name}"
            for key, least in _MINIMUM.items()
            if getattr(self, key) < least
        ]
        if self.channels > 3:
            problems.append(f"expected channels to be 1, 2 or 3, received channels={self.channels}")
        if self.canny and self.channels < 2:
            problems.append(
                f"expected channels=2 or 3 with canny=True, received channels={self.channels}; "
                f"the edges need a channel of their own: set recipes.{self.name}.channels"
            )
        if self.canny_low > self.canny_high:
            problems.append(
                f"expected canny_low <= canny_high, received canny_low={self.canny_low}, canny_high={self.canny_high}"
            )
        if problems:
            raise ParameterError(problems)

    @property
    def planes(self) -> int:
        """Planes of the prepared array: 1 (grey) or 2 (grey and edges)."""
        return 2 if self.canny else 1

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one network input: ``(size, size, channels)``."""
        return (self.size, self.size, self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Make the recipe storable.

        Returns:
            Field name to value, for JSON.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Read what :meth:`to_dict` gave.

        Args:
            values: field name to value.

        Returns:
            The recipe.

        Raises:
            ParameterError: if a field is unknown, missing or out of bounds.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        missing = sorted({"name", "system", "size", "channels"} - set(values))
        if unknown or missing:
            raise ParameterError(
                [f"expected the fields of a recipe ({', '.join(sorted(known))}), received {key}=..." for key in unknown]
                + [f"expected the field {key} of a recipe, received none; prepare the images again" for key in missing]
            )
        return cls(**values)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("s0_clahe_bilateral", "S0", 299, 3, clahe_clip=4.0, clahe_tiles=4, bilateral_diameter=8),
        Recipe("s1_resize", "S1", 64, 3),
        Recipe("s2_resize", "S2", 64, 1),
        Recipe("s3_equalise_morphology", "S3", 300, 3, equalise=True, morphology=5),
        Recipe("s4_resize", "S4", 224, 3),
    )
}
"""Name to recipe, each with the values of its source system."""


def recipe_named(name: str, **changes: Any) -> Recipe:
    """Look a recipe up and replace single values.

    Args:
        name: key of :data:`RECIPES`.
        **changes: field name to value; ``None`` keeps the source's value.

    Returns:
        The recipe, under the same name.

    Raises:
        ParameterError: if the name is unknown or a value is out of bounds.
    """
    if name not in RECIPES:
        raise ParameterError([f"expected recipe to be one of {', '.join(RECIPES)}, received recipe={name!r}"])
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


def apply(recipe: Recipe, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Carry a recipe out on one image: filters at full size, then the resize, then the edges.

    Args:
        recipe: what to do.
        grey: decoded image, ``(height, width)``, uint8, 0 black to 255 white.

    Returns:
        ``(size, size, planes)``, uint8; plane 0 is grey, plane 1, with ``canny``, is 0 or 255.

    Raises:
        ValueError: if the image is not a two-dimensional uint8 array.
    """
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise ValueError(f"expected a uint8 array (height, width), received shape={grey.shape}, dtype={grey.dtype}")
    image: NDArray[np.uint8] = grey
    if recipe.equalise:
        image = cv2.equalizeHist(image)
    if recipe.clahe_clip:
        tiles = (recipe.clahe_tiles, recipe.clahe_tiles)
        image = cv2.createCLAHE(clipLimit=recipe.clahe_clip, tileGridSize=tiles).apply(image)
    if recipe.bilateral_diameter:
        # A third: see the module's note on three equal channels.
        image = cv2.bilateralFilter(
            image, recipe.bilateral_diameter, recipe.bilateral_sigma_colour / 3, recipe.bilateral_sigma_space
        )
    if recipe.morphology:
        kernel = np.ones((recipe.morphology, recipe.morphology), np.uint8)
        image = cv2.morphologyEx(image, cv2.MORPH_CLOSE, kernel)
        image = cv2.morphologyEx(image, cv2.MORPH_OPEN, kernel)
    shrinks = min(image.shape) >= recipe.size
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    image = cv2.resize(image, (recipe.size, recipe.size), interpolation=interpolation)
    planes = [image]
    if recipe.canny:
        planes.append(cv2.Canny(image, recipe.canny_low, recipe.canny_high))
    return np.ascontiguousarray(np.stack(planes, axis=-1))


def as_input(images: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float32]:
    """Scale prepared images to [0, 1] and give them the channels that the network expects.

    Args:
        images: ``(batch, height, width, planes)``, uint8.
        recipe: recipe that the images were prepared with.

    Returns:
        ``(batch, height, width, channels)``, float32 in [0, 1]: grey in every channel; with ``canny`` the
        last channel holds the edges.

    Raises:
        ValueError: if the number of planes is not the recipe's.
    """
    if images.ndim != 4 or images.shape[-1] != recipe.planes:
        raise ValueError(
            f"expected (batch, height, width, {recipe.planes}) for recipe {recipe.name}, received shape={images.shape}"
        )
    scaled = np.divide(images, np.float32(255), dtype=np.float32)
    if recipe.channels == recipe.planes:
        return scaled
    inputs = np.empty((*images.shape[:-1], recipe.channels), np.float32)
    inputs[..., : recipe.channels] = scaled[..., :1]
    if recipe.canny:
        inputs[..., -1] = scaled[..., 1]
    return inputs

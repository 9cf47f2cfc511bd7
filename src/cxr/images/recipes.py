"""Preprocessing recipes, one per source system: from a grey radiograph of any size to a small square array.

A :class:`Recipe` holds only values; :func:`apply_recipe` applies them. Training and prediction call the same function,
and the recipe is stored with the weights in the model's metadata.

Three choices hold for all recipes:

* **Grey.** The source systems read three colour channels. Radiographs are grey, and the few colour files of the public
  data set all have the same label, so colour would leak it. Here one channel is processed and then repeated at the
  network's input (:func:`to_network_input`). Filters that mix channels are corrected for this: a bilateral filter on
  three equal channels sums three equal differences, so it equals the one-channel filter with a third of
  ``sigma colour``.
* **Averaging when shrinking.** Where a source does not state its interpolation, images are shrunk with
  ``cv2.INTER_AREA`` (every source pixel counts) and enlarged with ``cv2.INTER_LINEAR``. Linear interpolation from 1,400
  to 64 pixels reads 2 pixels in 22 and folds ribs and noise into false texture (aliasing). This texture depends on the
  resolution of the scanner, and a network can learn it as a shortcut.
* **Black where there is no image.** With ``fit="pad"`` the part of the square beside the image is black, after the
  filters, so that it changes neither the histogram nor an edge. Black is what a film shows outside of the collimated
  field, and 0 is what convolutions assume beyond their input. Repeated or mirrored borders would draw stripes and
  ribs that do not exist. The width of the black part tells the aspect ratio of the image, as the distortion does with
  ``fit="squash"``; only ``fit="crop"`` hides it, and it cuts off what is outside of the central square.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ParameterError

Fit = Literal["squash", "pad", "crop"]
"""How an image that is not square becomes square; see :class:`Recipe`."""

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
class Placement:
    """Which rectangle of an image a recipe uses, and where the prepared image shows it.

    Attributes:
        source: rows and columns of the image that are used.
        target: rows and columns of the prepared image that they are resized to; what is outside of them is black.
    """

    source: tuple[slice, slice]
    target: tuple[slice, slice]


@dataclass(frozen=True)
class Recipe:
    """The operations on an image before a network sees it, in the order of the fields.

    Attributes:
        name: key in :data:`RECIPES`; it stays the same when single values are replaced.
        system: source system, ``"S0"`` to ``"S4"``.
        size: side of the output in pixels.
        channels: channels of the network's input (the stored array keeps one grey plane).
        fit: how an image that is not square becomes square. ``"squash"`` stretches it, as the sources do: the aspect
            ratio is not kept. ``"crop"`` takes the central square, before the filters. ``"pad"`` takes the whole image
            and leaves the rest of the square black.
        equalise: whether the histogram is equalised over the whole image (S3).
        clahe_clip: clip limit of contrast-limited adaptive histogram equalisation; 0 omits it (S0: 4).
        clahe_tiles: tiles per side of that equalisation.
        bilateral_diameter: diameter of the bilateral filter in pixels; 0 omits it (S0: 8).
        bilateral_sigma_colour: its sigma in colour, as the source states it for three channels.
        bilateral_sigma_space: its sigma in space, in pixels.
        morphology: side of the square kernel of a closing followed by an opening; 0 omits them (S3: 5).
        canny: whether Canny edges of the resized image become a second plane (S4's road map).
        canny_low: lower threshold of Canny's hysteresis, grey levels per pixel.
        canny_high: upper threshold.
    """

    name: str
    system: str
    size: int
    channels: int
    fit: Fit = "squash"
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
            f"expected {key} of at least {minimum}, received {key}={getattr(self, key)}; "
            f"correct it in recipes.{self.name}"
            for key, minimum in _MINIMUM.items()
            if getattr(self, key) < minimum
        ]
        if self.fit not in get_args(Fit):
            problems.append(
                f"expected fit to be one of {', '.join(get_args(Fit))}, received fit={self.fit!r}; "
                f"correct it in recipes.{self.name}"
            )
        if self.channels > 3:
            problems.append(f"expected channels to be 1, 2 or 3, received channels={self.channels}")
        if self.canny and self.channels < 2:
            problems.append(
                f"expected channels=2 or 3 with canny=True, received channels={self.channels}; "
                f"the edges need their own channel: set recipes.{self.name}.channels"
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

    def placement(self, height: int, width: int) -> Placement:
        """Find which rectangle of an image this recipe uses, and where the prepared image shows it.

        Args:
            height: rows of the image.
            width: columns of the image.

        Returns:
            The two rectangles, in pixels.
        """
        source, target = (height, width), (self.size, self.size)
        if self.fit == "crop":
            source = (min(source), min(source))
        elif self.fit == "pad":
            # The same margin on both sides, so that the mirror image of a prepared image is that of the mirrored image.
            margins = (round(self.size * (1 - side / max(source)) / 2) for side in source)
            rows, columns = (self.size - 2 * min(margin, (self.size - 1) // 2) for margin in margins)
            target = (rows, columns)
        return Placement(_centred(source, (height, width)), _centred(target, (self.size, self.size)))

    def to_dict(self) -> dict[str, Any]:
        """Convert the recipe to a dictionary.

        Returns:
            Field name to value, for JSON. Without ``fit`` if it is ``"squash"``: the files and digests of such recipes
            stay those that they were before there was a choice.
        """
        values = asdict(self)
        if self.fit == "squash":
            del values["fit"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Create a recipe from the result of :meth:`to_dict`.

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
"""Recipes by name, each with the values of its source system."""


def recipe_named(name: str, **changes: Any) -> Recipe:
    """Return a recipe with single values replaced.

    Args:
        name: key of :data:`RECIPES`.
        **changes: field name to value; None keeps the value of the source system.

    Returns:
        The recipe, under the same name.

    Raises:
        ParameterError: if the name is unknown or a value is out of bounds.
    """
    if name not in RECIPES:
        raise ParameterError([f"expected recipe to be one of {', '.join(RECIPES)}, received recipe={name!r}"])
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


def apply_recipe(recipe: Recipe, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Apply a recipe to one image: crop, filters at full size, resize, edges, and black beside the image.

    Args:
        recipe: the recipe.
        grey: decoded image, ``(height, width)``, uint8, 0 black to 255 white.

    Returns:
        ``(size, size, planes)``, uint8; plane 0 is grey, and with ``canny`` plane 1 is 0 or 255.

    Raises:
        ValueError: if the image is not a two-dimensional uint8 array.
    """
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise ValueError(f"expected a uint8 array (height, width), received shape={grey.shape}, dtype={grey.dtype}")
    placement = recipe.placement(*grey.shape)
    image: NDArray[np.uint8] = grey[placement.source]
    if recipe.equalise:
        image = cv2.equalizeHist(image)
    if recipe.clahe_clip:
        tiles = (recipe.clahe_tiles, recipe.clahe_tiles)
        image = cv2.createCLAHE(clipLimit=recipe.clahe_clip, tileGridSize=tiles).apply(image)
    if recipe.bilateral_diameter:
        # A third of sigma: see the note of the module on three equal channels.
        image = cv2.bilateralFilter(
            image, recipe.bilateral_diameter, recipe.bilateral_sigma_colour / 3, recipe.bilateral_sigma_space
        )
    if recipe.morphology:
        kernel = np.ones((recipe.morphology, recipe.morphology), np.uint8)
        image = cv2.morphologyEx(image, cv2.MORPH_CLOSE, kernel)
        image = cv2.morphologyEx(image, cv2.MORPH_OPEN, kernel)
    height, width = (span.stop - span.start for span in placement.target)
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    prepared = np.zeros((recipe.size, recipe.size, recipe.planes), np.uint8)
    prepared[(*placement.target, 0)] = image
    if recipe.canny:
        prepared[(*placement.target, 1)] = cv2.Canny(image, recipe.canny_low, recipe.canny_high)
    return prepared


def _centred(inner: tuple[int, int], outer: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the inner rectangle in the middle of the outer one; sizes are (height, width)."""
    rows, columns = (
        slice((whole - part) // 2, (whole - part) // 2 + part) for part, whole in zip(inner, outer, strict=True)
    )
    return rows, columns


def to_network_input(images: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float32]:
    """Scale prepared images to [0, 1] and expand them to the channels that the network expects.

    Args:
        images: ``(batch, height, width, planes)``, uint8.
        recipe: recipe that the images were prepared with.

    Returns:
        ``(batch, height, width, channels)``, float32 in [0, 1]: grey in every channel; with ``canny`` the last channel
        holds the edges.

    Raises:
        ValueError: if the number of planes is not that of the recipe.
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


def network_batches(
    images: NDArray[np.uint8], recipe: Recipe, batch_size: int
) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Divide prepared images into the batches of a network that predicts.

    Sizes are powers of two, or the full batch: each size is compiled once, and one image is cheap.

    Args:
        images: ``(n, height, width, planes)``, uint8.
        recipe: recipe that the images were prepared with.
        batch_size: most images per batch.

    Yields:
        A batch, as :func:`to_network_input` gives it, and how many of its images are asked for: the others repeat the
        last one.
    """
    for start in range(0, len(images), batch_size):
        batch = to_network_input(np.asarray(images[start : start + batch_size]), recipe)
        count = len(batch)
        size = min(batch_size, 1 << (count - 1).bit_length())
        yield np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)]) if count < size else batch, count

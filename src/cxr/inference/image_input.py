"""The images that a predictor takes: files as bytes, paths of files, or decoded images, prepared by its recipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from cxr.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxr.images.recipes import Recipe
    from cxr.images.strict_decoding import DecodedImage

ImageInput = Union[bytes, str, Path, "DecodedImage"]
_BYTES_LIKE = (bytes, bytearray, memoryview)


def decode_input(image: ImageInput, number: int = 0) -> DecodedImage:
    """Decode one image; the error names it.

    Args:
        image: an image file as bytes, the path of one, or a decoded image, which is returned as it is.
        number: index of the image, for the error.

    Returns:
        The decoded image.

    Raises:
        ImageError: if it cannot be used; the detail names the image.
    """
    from cxr.images.decoding import decode_image
    from cxr.images.strict_decoding import DecodedImage

    if isinstance(image, DecodedImage):
        return image
    try:
        return decode_image(bytes(image) if isinstance(image, _BYTES_LIKE) else Path(image).read_bytes())
    except OSError as error:
        raise ImageError("unreadable", f"{image!r}: {error.strerror or error}") from error
    except ImageError as error:
        name = f"image {number} ({len(image)} bytes)" if isinstance(image, _BYTES_LIKE) else str(image)
        raise ImageError(error.problem, f"{name}: {error.detail}") from error


def prepare_inputs(recipes: Sequence[Recipe], inputs: Sequence[ImageInput]) -> dict[Recipe, NDArray[np.uint8]]:
    """Decode each image once and apply each recipe to it.

    Args:
        recipes: recipes of a predictor.
        inputs: image files as bytes, paths of image files, or decoded images; at least one.

    Returns:
        Recipe to ``(n, size, size, planes)`` uint8.

    Raises:
        ImageError: if an image cannot be used; its detail names the image.
    """
    from cxr.images.recipes import apply_recipe

    prepared: dict[Recipe, list[NDArray[np.uint8]]] = {recipe: [] for recipe in recipes}
    for number, image in enumerate(inputs):
        grey = decode_input(image, number).grey
        for recipe, images in prepared.items():
            images.append(apply_recipe(recipe, grey))
    return {recipe: np.stack(images) for recipe, images in prepared.items()}

"""Augmentation of training images: small random changes of position that leave the diagnosis as it is.

The ranges mean what they mean in Keras's ``ImageDataGenerator``, which the source systems S1 to S4 use, so
that their settings can be copied: rotation and shear in degrees, zoom per axis in [1 - zoom, 1 + zoom], shift
as a fraction of the side, pixels outside filled with the nearest edge pixel. Rotation, shift, shear, zoom and
flip are joined into one matrix, so that every image is interpolated once. There is no vertical flip: nobody
is imaged upside down.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ParameterError

_UPPER = {"rotation": 180.0, "zoom": 0.9, "shear": 80.0, "shift": 1.0}


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; zero, or ``False``, leaves a change out.

    Attributes:
        horizontal_flip: whether half of the images are mirrored left to right (S1, S3, S4).
        rotation: largest rotation, degrees, either way (S4: 20).
        zoom: height and width are zoomed apart, each by a factor in [1 - zoom, 1 + zoom] (S3: 0.3, S4: 0.2).
        shear: largest shear angle, degrees, either way.
        shift: largest shift along each axis, as a fraction of the side.
    """

    horizontal_flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"expected {key} in [0, {upper:g}], received {key}={getattr(self, key)}"
            for key, upper in _UPPER.items()
            if not 0 <= getattr(self, key) <= upper
        ]
        if problems:
            raise ParameterError(problems)

    @property
    def changes(self) -> bool:
        """Whether anything is changed at all."""
        return self.horizontal_flip or self.warps

    @property
    def warps(self) -> bool:
        """Whether pixels are interpolated, that is, anything beyond the flip is asked for."""
        return any(getattr(self, key) > 0 for key in _UPPER)


def augment(images: NDArray[np.uint8], augmentation: Augmentation, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Change each image of a batch at random.

    The same generator state gives the same result on every machine and with every number of threads; the
    numbers drawn per image do not depend on which changes are switched on.

    Args:
        images: ``(batch, height, width, planes)``, uint8, 1 to 4 planes; not altered.
        augmentation: ranges.
        generator: source of the random numbers.

    Returns:
        The changed images, same shape and type; all planes of an image are changed alike.

    Raises:
        ValueError: if the images are not a four-dimensional uint8 array with 1 to 4 planes.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or not 1 <= images.shape[-1] <= 4:
        raise ValueError(
            "expected uint8 images (batch, height, width, planes) with 1 to 4 planes, "
            f"received shape={images.shape}, dtype={images.dtype}"
        )
    count, height, width, planes = images.shape
    draws = generator.uniform(-1.0, 1.0, (count, 7))
    flips = (draws[:, 6] < 0) & augmentation.horizontal_flip
    if not augmentation.warps:
        return np.where(flips[:, None, None, None], images[:, :, ::-1], images)
    matrices = affine_matrices(draws[:, :6], flips, augmentation, height, width)
    # OpenCV drops a last axis of length 1, so a single plane is passed without it.
    source = np.ascontiguousarray(images)
    result = np.empty_like(source)
    sources, results = (source[..., 0], result[..., 0]) if planes == 1 else (source, result)
    for image, matrix, target in zip(sources, matrices, results, strict=True):
        cv2.warpAffine(
            image,
            matrix,
            (width, height),
            dst=target,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return result


def affine_matrices(
    draws: NDArray[np.float64], flips: NDArray[np.bool_], augmentation: Augmentation, height: int, width: int
) -> NDArray[np.float64]:
    """Join rotation, shift, shear, zoom and flip into one matrix per image, as ``ImageDataGenerator`` does.

    Args:
        draws: ``(batch, 6)`` numbers in [-1, 1]: rotation, vertical and horizontal shift, shear, vertical and
            horizontal zoom.
        flips: ``(batch,)``, which images are mirrored.
        augmentation: ranges.
        height: of the images, pixels.
        width: of the images, pixels.

    Returns:
        ``(batch, 2, 3)``: from a pixel (x, y) of the result to the point of the source that it shows.
    """
    angle = np.deg2rad(augmentation.rotation) * draws[:, 0]
    down = augmentation.shift * height * draws[:, 1]
    right = augmentation.shift * width * draws[:, 2]
    shear = np.deg2rad(augmentation.shear) * draws[:, 3]
    zoom_y = 1 + augmentation.zoom * draws[:, 4]
    zoom_x = 1 + augmentation.zoom * draws[:, 5]

    # In (x, y), about the centre: rotation @ shift @ shear @ zoom @ flip.
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=-1).reshape(-1, 2, 2)
    slant = np.zeros_like(turn)
    slant[:, 0, 0], slant[:, 1, 0], slant[:, 1, 1] = np.cos(shear), -np.sin(shear), 1.0
    scale = np.zeros_like(turn)
    scale[:, 0, 0], scale[:, 1, 1] = np.where(flips, -zoom_x, zoom_x), zoom_y

    linear = turn @ slant @ scale
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    moved = (turn @ np.stack([right, down], axis=-1)[..., None])[..., 0]
    offset = centre + moved - linear @ centre
    return np.concatenate([linear, offset[..., None]], axis=-1)

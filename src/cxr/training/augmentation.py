"""Augmentation of training images: small random changes of position that do not change the diagnosis.

The ranges have the meaning of Keras's ``ImageDataGenerator``, which the source systems S1 to S4 use, so that their
settings can be copied: rotation and shear in degrees, zoom per axis in [1 - zoom, 1 + zoom], shift as a fraction of
the side; pixels outside the image take the value of the nearest edge pixel. Rotation, shift, shear, zoom and flip are
joined into one matrix, so that every image is interpolated only once. There is no vertical flip, because no
radiograph is taken upside down.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ParameterError

_UPPER_BOUNDS = {"rotation": 180.0, "zoom": 0.9, "shear": 80.0, "shift": 1.0}


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; 0 or ``False`` switches a change off.

    Attributes:
        horizontal_flip: whether half of the images are mirrored left to right (S1, S3, S4).
        rotation: largest rotation in either direction, degrees (S4: 20).
        zoom: height and width are zoomed independently, each by a factor in [1 - zoom, 1 + zoom] (S3: 0.3, S4: 0.2).
        shear: largest shear angle in either direction, degrees.
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
            for key, upper in _UPPER_BOUNDS.items()
            if not 0 <= getattr(self, key) <= upper
        ]
        if problems:
            raise ParameterError(problems)

    @property
    def is_active(self) -> bool:
        """Whether any change is switched on."""
        return self.horizontal_flip or self.interpolates

    @property
    def interpolates(self) -> bool:
        """Whether pixels are interpolated, that is, any change other than the flip is switched on."""
        return any(getattr(self, key) > 0 for key in _UPPER_BOUNDS)


def augment(images: NDArray[np.uint8], augmentation: Augmentation, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Change each image of a batch at random.

    The same generator state gives the same result on every machine and with every number of threads. The numbers
    drawn per image do not depend on which changes are switched on.

    Args:
        images: ``(batch, height, width, planes)``, uint8, 1 to 4 planes; not modified.
        augmentation: ranges.
        generator: source of the random numbers.

    Returns:
        The changed images, same shape and type; all planes of an image are changed in the same way.

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
    if not augmentation.interpolates:
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
        flips: ``(batch,)``, True for images that are mirrored.
        augmentation: ranges.
        height: height of the images, pixels.
        width: width of the images, pixels.

    Returns:
        ``(batch, 2, 3)``: maps a pixel (x, y) of the result to the point of the original image that it shows.
    """
    angle = np.deg2rad(augmentation.rotation) * draws[:, 0]
    shift_y = augmentation.shift * height * draws[:, 1]
    shift_x = augmentation.shift * width * draws[:, 2]
    shear = np.deg2rad(augmentation.shear) * draws[:, 3]
    zoom_y = 1 + augmentation.zoom * draws[:, 4]
    zoom_x = 1 + augmentation.zoom * draws[:, 5]

    # In (x, y), about the centre: rotation @ shift @ shear @ zoom @ flip.
    rotations = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=-1).reshape(-1, 2, 2)
    shears = np.zeros_like(rotations)
    shears[:, 0, 0], shears[:, 1, 0], shears[:, 1, 1] = np.cos(shear), -np.sin(shear), 1.0
    zooms = np.zeros_like(rotations)
    zooms[:, 0, 0], zooms[:, 1, 1] = np.where(flips, -zoom_x, zoom_x), zoom_y

    linear = rotations @ shears @ zooms
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shifts = (rotations @ np.stack([shift_x, shift_y], axis=-1)[..., None])[..., 0]
    offset = centre + shifts - linear @ centre
    return np.concatenate([linear, offset[..., None]], axis=-1)

"""Augmentation of training images: small random changes that do not change the diagnosis.

Changes of position come first. Their ranges have the meaning of Keras's ``ImageDataGenerator``, which the source
systems S1 to S4 use, so that their settings can be copied: rotation and shear in degrees, zoom per axis in
[1 - zoom, 1 + zoom], shift as a fraction of the side; pixels outside the image take the value of the nearest edge
pixel. Rotation, shift, shear, zoom and flip are joined into one matrix, so that every image is interpolated only once.
There is no vertical flip, because no radiograph is taken upside down.

Changes of the grey levels follow, in the order in which an image is acquired: gamma, contrast and brightness (joined
into one table of 256 values, so that grey levels are rounded only once), then blur, then JPEG compression. They stand
for another exposure, another detector and another archive. Only the first plane of an image is changed: the second
holds edges, 0 or 255, which are not grey levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ParameterError

_UPPER_BOUNDS = {"rotation": 180.0, "zoom": 0.9, "shear": 80.0, "shift": 1.0}
_PHOTOMETRIC_UPPER_BOUNDS = {"gamma": 2.0, "contrast": 0.9, "brightness": 0.9, "blur": 10.0}
BEST_JPEG_QUALITY = 100


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; 0 or ``False`` switches a change off.

    Attributes:
        horizontal_flip: whether half of the images are mirrored left to right (S1, S3, S4).
        rotation: largest rotation in either direction, degrees (S4: 20).
        zoom: height and width are zoomed independently, each by a factor in [1 - zoom, 1 + zoom] (S3: 0.3, S4: 0.2).
        shear: largest shear angle in either direction, degrees.
        shift: largest shift along each axis, as a fraction of the side.
        gamma: grey levels in [0, 1] are raised to a power in [exp(-gamma), exp(gamma)].
        contrast: distances from the image's mean are multiplied by a factor in [1 - contrast, 1 + contrast].
        brightness: grey levels are multiplied by a factor in [1 - brightness, 1 + brightness]; black stays black.
        blur: largest standard deviation of a Gaussian blur, in pixels of the prepared image; the smallest is 0.
        jpeg_quality: lowest quality of a JPEG compression, 1 to 100; the highest is 100. 100 compresses nothing.
    """

    horizontal_flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    blur: float = 0.0
    jpeg_quality: float = BEST_JPEG_QUALITY

    def __post_init__(self) -> None:
        bounds = {key: (0.0, upper) for key, upper in (_UPPER_BOUNDS | _PHOTOMETRIC_UPPER_BOUNDS).items()}
        bounds["jpeg_quality"] = (1.0, BEST_JPEG_QUALITY)
        problems = [
            f"expected {key} in [{lower:g}, {upper:g}], received {key}={getattr(self, key)}"
            for key, (lower, upper) in bounds.items()
            if not lower <= getattr(self, key) <= upper
        ]
        if problems:
            raise ParameterError(problems)

    @property
    def is_active(self) -> bool:
        """Whether any change is switched on."""
        return self.horizontal_flip or self.interpolates or self.changes_grey_levels

    @property
    def interpolates(self) -> bool:
        """Whether pixels are interpolated, that is, any change other than the flip is switched on."""
        return any(getattr(self, key) > 0 for key in _UPPER_BOUNDS)

    @property
    def filters(self) -> bool:
        """Whether images are blurred or compressed, which only the CPU does."""
        return self.blur > 0 or self.jpeg_quality < BEST_JPEG_QUALITY

    @property
    def changes_grey_levels(self) -> bool:
        """Whether any change other than one of position is switched on."""
        return any(getattr(self, key) > 0 for key in _PHOTOMETRIC_UPPER_BOUNDS) or self.jpeg_quality < BEST_JPEG_QUALITY


@dataclass(frozen=True)
class DrawnChanges:
    """The random changes of a batch.

    Attributes:
        augmentation: the ranges that they were drawn from.
        matrices: ``(batch, 2, 3)`` float64, the result of :func:`affine_matrices`.
        flips: ``(batch,)``, True for images that are mirrored.
        photometric_draws: ``(batch, 5)`` numbers in [-1, 1], see :func:`change_grey_levels`.
    """

    augmentation: Augmentation
    matrices: NDArray[np.float64]
    flips: NDArray[np.bool_]
    photometric_draws: NDArray[np.float64]

    def select(self, rows: NDArray[np.int64] | slice) -> DrawnChanges:
        """Take the changes of some images.

        Args:
            rows: positions in the batch, or a slice of it.

        Returns:
            Their changes, in this order.
        """
        return DrawnChanges(self.augmentation, self.matrices[rows], self.flips[rows], self.photometric_draws[rows])


def draw_changes(
    count: int, height: int, width: int, augmentation: Augmentation, generator: np.random.Generator
) -> DrawnChanges:
    """Draw the changes of a batch, whether the CPU or another device makes them.

    The numbers drawn per image do not depend on which changes are switched on.

    Args:
        count: number of images.
        height: height of the images, pixels.
        width: width of the images, pixels.
        augmentation: ranges.
        generator: source of the random numbers.

    Returns:
        The changes.
    """
    draws = generator.uniform(-1.0, 1.0, (count, 7))
    photometric_draws = generator.uniform(-1.0, 1.0, (count, 5))
    flips = (draws[:, 6] < 0) & augmentation.horizontal_flip
    matrices = affine_matrices(draws[:, :6], flips, augmentation, height, width)
    return DrawnChanges(augmentation, matrices, flips, photometric_draws)


def grey_level_factors(augmentation: Augmentation, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn draws into the numbers that change grey levels.

    Args:
        augmentation: ranges.
        draws: ``(..., 3)`` or more numbers in [-1, 1]: gamma, contrast, brightness.

    Returns:
        ``(..., 3)``: exponent of the grey levels in [0, 1], factor of the distances from the mean, factor of the grey
        levels.
    """
    factors = [
        np.exp(augmentation.gamma * draws[..., 0]),
        1 + augmentation.contrast * draws[..., 1],
        1 + augmentation.brightness * draws[..., 2],
    ]
    return np.stack(factors, axis=-1)


def augment(images: NDArray[np.uint8], augmentation: Augmentation, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Change each image of a batch at random.

    The same generator state gives the same result on every machine and with every number of threads.

    Args:
        images: ``(batch, height, width, planes)``, uint8, 1 to 4 planes; not modified.
        augmentation: ranges.
        generator: source of the random numbers.

    Returns:
        The changed images, same shape and type. All planes of an image move in the same way; the grey levels of the
        first alone are changed.

    Raises:
        ValueError: if the images are not a four-dimensional uint8 array with 1 to 4 planes.
    """
    count, height, width = images.shape[:3]
    return apply_changes(images, draw_changes(count, height, width, augmentation, generator))


def apply_changes(images: NDArray[np.uint8], changes: DrawnChanges) -> NDArray[np.uint8]:
    """Change each image of a batch as :func:`draw_changes` has drawn.

    Args:
        images: as for :func:`augment`.
        changes: the changes.

    Returns:
        As :func:`augment`.

    Raises:
        ValueError: as :func:`augment`.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or not 1 <= images.shape[-1] <= 4:
        raise ValueError(
            "expected uint8 images (batch, height, width, planes) with 1 to 4 planes, "
            f"received shape={images.shape}, dtype={images.dtype}"
        )
    if changes.augmentation.interpolates:
        moved = _warp(images, changes.matrices)
    else:
        moved = np.where(changes.flips[:, None, None, None], images[:, :, ::-1], images)
    if changes.augmentation.changes_grey_levels:
        for image, draws in zip(moved, changes.photometric_draws, strict=True):
            image[..., 0] = change_grey_levels(np.ascontiguousarray(image[..., 0]), changes.augmentation, draws)
    return moved


def _warp(images: NDArray[np.uint8], matrices: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Move each image by its matrix, with one interpolation."""
    height, width, planes = images.shape[1:]
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


def change_grey_levels(
    image: NDArray[np.uint8], augmentation: Augmentation, draws: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Change gamma, contrast and brightness of an image, then blur it, then compress it as JPEG.

    Args:
        image: ``(height, width)``, uint8; not modified.
        augmentation: ranges.
        draws: ``(5,)`` numbers in [-1, 1]: gamma, contrast, brightness, blur and quality. -1 is no blur and the lowest
            quality.

    Returns:
        ``(height, width)``, uint8.
    """
    exponent, contrast, brightness = grey_level_factors(augmentation, draws)
    levels = np.linspace(0.0, 1.0, 256) ** exponent
    mean = levels @ np.bincount(image.ravel(), minlength=256) / image.size
    levels = brightness * (mean + contrast * (levels - mean))
    changed = cv2.LUT(image, np.clip(np.rint(255 * levels), 0, 255).astype(np.uint8))
    sigma = augmentation.blur * (1 + draws[3]) / 2
    if sigma > 0:
        changed = cv2.GaussianBlur(changed, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    if augmentation.jpeg_quality < BEST_JPEG_QUALITY:
        quality = augmentation.jpeg_quality + (BEST_JPEG_QUALITY - augmentation.jpeg_quality) * (1 + draws[4]) / 2
        _, data = cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, round(quality)])
        changed = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    result: NDArray[np.uint8] = changed
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

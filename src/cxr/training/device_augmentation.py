"""Augmentation on the device that trains, through Keras operations: the same on every backend.

The CPU draws the changes (:func:`cxr.training.augmentation.draw_changes`) and sends some 60 bytes per image; the device
makes them. The images are those of :func:`cxr.training.augmentation.augment` to within one grey level, because both
interpolate linearly and round to whole grey levels after the same operations. With a second plane they are so to within
9 grey levels: OpenCV moves two planes in steps of 1/32 pixel.
"""

from __future__ import annotations

from typing import Any

from keras import ops


def move(images: Any, matrices: Any) -> Any:
    """Move each image by its matrix, with one linear interpolation; edge pixels are repeated outside of the image.

    Args:
        images: ``(batch, height, width, planes)``, float32, whole grey levels in [0, 255].
        matrices: ``(batch, 2, 3)`` float32, see :func:`cxr.training.augmentation.affine_matrices`.

    Returns:
        The moved images, same shape, type and range.
    """
    height, width, planes = images.shape[1:]
    columns, rows = ops.meshgrid(ops.arange(width, dtype="float32"), ops.arange(height, dtype="float32"))
    matrix = ops.expand_dims(matrices, (-2, -1))
    # (batch, 2, height, width): the point (x, y) of the original that each pixel shows.
    points = matrix[:, :, 0] * columns + matrix[:, :, 1] * rows + matrix[:, :, 2]
    corners = ops.floor(points)
    share = points - corners
    left, right = (_index(corners[:, 0] + step, width) for step in (0, 1))
    top, bottom = (_index(corners[:, 1] + step, height) for step in (0, 1))
    first_pixels = ops.reshape(ops.arange(ops.shape(images)[0], dtype="int32") * (height * width), (-1, 1, 1))
    pixels = ops.reshape(images, (-1, planes))

    def mix_columns(row: Any) -> Any:
        at_left, at_right = (ops.take(pixels, first_pixels + row * width + column, axis=0) for column in (left, right))
        return at_left + share[:, 0, ..., None] * (at_right - at_left)

    upper, lower = mix_columns(top), mix_columns(bottom)
    return ops.round(upper + share[:, 1, ..., None] * (lower - upper))


def change_grey_levels(images: Any, factors: Any) -> Any:
    """Change gamma, contrast and brightness of the first plane.

    Args:
        images: as for :func:`move`.
        factors: ``(batch, 3)`` float32, the result of :func:`cxr.training.augmentation.grey_level_factors`.

    Returns:
        The changed images, same shape, type and range.
    """
    exponent, contrast, brightness = (factors[:, number, None, None, None] for number in range(3))
    levels = ops.power(images[..., :1] / 255, exponent)
    mean = ops.mean(levels, axis=(1, 2, 3), keepdims=True)
    levels = brightness * (mean + contrast * (levels - mean))
    changed = ops.clip(ops.round(255 * levels), 0, 255)
    return changed if images.shape[-1] == 1 else ops.concatenate([changed, images[..., 1:]], axis=-1)


def _index(position: Any, side: int) -> Any:
    return ops.cast(ops.clip(position, 0, side - 1), "int32")

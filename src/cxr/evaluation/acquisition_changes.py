"""Fixed changes of prepared images, as another device, exposure, archive or way of positioning makes them.

They do not change the diagnosis, so a model should answer as before: what is cut off lies outside of
:func:`cxr.evaluation.shortcut_checks.lung_field`, and a blur leaves what is larger than a few hundredths of the side.
Nothing is drawn at random: the same image always gives the same changed image. Lengths are shares of the side, so that
a change means the same for every input size; JPEG compression is the exception, because its blocks are 8 pixels wide.

They are applied after the recipe, because only prepared images are at hand quickly for every data set. A recipe that
equalises the histogram would undo a part of a change of the grey levels before it; for such a recipe the test is
stricter than a change of the device is. Edges in a second plane move with the image and stay as they are under changes
of the grey levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SHARPENING_RADIUS = 0.01
"""Standard deviation of the blur whose difference to the image is added by sharpening, as a share of the side."""


@dataclass(frozen=True)
class AcquisitionChange:
    """One change at one strength.

    Attributes:
        kind: what is changed, e.g. ``"gamma"``.
        strength: how much; the unit is that of ``function``.
        title: name for readers.
        function: from one plane ``(height, width)`` uint8 and the strength to the changed plane, same shape and type.
        moves_pixels: whether pixels change their place. If so, all planes are changed, else the first alone.
    """

    kind: str
    strength: float
    title: str
    function: Callable[[NDArray[np.uint8], float], NDArray[np.uint8]]
    moves_pixels: bool = False

    @property
    def key(self) -> str:
        """Kind and strength, e.g. ``"gamma_0.7"``."""
        return f"{self.kind}_{self.strength:g}"

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Change one prepared image.

        Args:
            image: ``(height, width, planes)``, uint8; not modified.

        Returns:
            The changed image, same shape and type.
        """
        changed = np.array(image, dtype=np.uint8)
        for plane in range(image.shape[-1] if self.moves_pixels else 1):
            changed[..., plane] = self.function(np.ascontiguousarray(image[..., plane]), self.strength)
        return changed


def change_gamma(plane: NDArray[np.uint8], exponent: float) -> NDArray[np.uint8]:
    """Raise the grey levels, in [0, 1], to a power.

    Args:
        plane: ``(height, width)``, uint8.
        exponent: above 0; below 1 the image becomes brighter.

    Returns:
        Same shape and type.
    """
    return _map_levels(plane, np.linspace(0.0, 1.0, 256) ** exponent)


def change_contrast(plane: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Multiply the distances from the mean grey level. Black stays black: there is no film, or no X-ray was stopped.

    Args:
        plane: ``(height, width)``, uint8.
        factor: above 0; below 1 the contrast becomes lower.

    Returns:
        Same shape and type.
    """
    mean = float(plane.mean()) / 255
    levels = mean + factor * (np.linspace(0.0, 1.0, 256) - mean)
    levels[0] = 0.0
    return _map_levels(plane, levels)


def change_brightness(plane: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Multiply the grey levels; black stays black.

    Args:
        plane: ``(height, width)``, uint8.
        factor: above 0; below 1 the image becomes darker.

    Returns:
        Same shape and type.
    """
    return _map_levels(plane, factor * np.linspace(0.0, 1.0, 256))


def blur(plane: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Blur with a Gaussian.

    Args:
        plane: ``(height, width)``, uint8.
        radius: standard deviation, as a share of the larger side.

    Returns:
        Same shape and type.
    """
    return _as_uint8(cv2.GaussianBlur(plane, (0, 0), radius * max(plane.shape), borderType=cv2.BORDER_REPLICATE))


def sharpen(plane: NDArray[np.uint8], amount: float) -> NDArray[np.uint8]:
    """Add what a blur of :data:`SHARPENING_RADIUS` takes away (unsharp masking), as devices do it.

    Args:
        plane: ``(height, width)``, uint8.
        amount: how many times it is added, above 0.

    Returns:
        Same shape and type.
    """
    return _as_uint8(cv2.addWeighted(plane, 1 + amount, blur(plane, SHARPENING_RADIUS), -amount, 0))


def compress_as_jpeg(plane: NDArray[np.uint8], quality: float) -> NDArray[np.uint8]:
    """Compress as JPEG and decode again.

    Args:
        plane: ``(height, width)``, uint8.
        quality: 1 to 100.

    Returns:
        Same shape and type.
    """
    _, data = cv2.imencode(".jpg", plane, [cv2.IMWRITE_JPEG_QUALITY, round(quality)])
    return _as_uint8(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def stretch(plane: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Change the aspect ratio of what is shown; the size stays the same.

    Args:
        plane: ``(height, width)``, uint8.
        factor: above 1 everything becomes wider and the left and right border are cut off, below 1 everything becomes
            taller by 1 / factor and the upper and lower border are cut off.

    Returns:
        Same shape and type.
    """
    return _warp(plane, np.diag([1 / max(factor, 1.0), min(factor, 1.0)]))


def crop_border(plane: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Cut off the same share of all four borders, and enlarge the rest to the same size.

    Args:
        plane: ``(height, width)``, uint8.
        share: share of the side, 0 to 0.5, that each border loses.

    Returns:
        Same shape and type.
    """
    return _warp(plane, (1 - 2 * share) * np.eye(2))


def rotate(plane: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotate about the centre; empty corners take the grey level of the nearest border pixel.

    Args:
        plane: ``(height, width)``, uint8.
        degrees: angle; above 0 counterclockwise.

    Returns:
        Same shape and type.
    """
    angle = np.deg2rad(degrees)
    return _warp(plane, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))


def _map_levels(plane: NDArray[np.uint8], levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Replace each of the 256 grey levels; ``levels`` are in [0, 1] and clipped."""
    return _as_uint8(cv2.LUT(plane, np.clip(np.rint(255 * levels), 0, 255).astype(np.uint8)))


def _warp(plane: NDArray[np.uint8], linear: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Show at each (x, y) about the centre the point of the plane at ``linear @ (x, y)``."""
    height, width = plane.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.column_stack([linear, centre - linear @ centre])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return _as_uint8(cv2.warpAffine(plane, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _as_uint8(pixels: object) -> NDArray[np.uint8]:
    return np.asarray(pixels, dtype=np.uint8)


ACQUISITION_CHANGES: tuple[AcquisitionChange, ...] = (
    AcquisitionChange("gamma", 0.7, "Gamma 0.7", change_gamma),
    AcquisitionChange("gamma", 1.5, "Gamma 1.5", change_gamma),
    AcquisitionChange("contrast", 0.6, "Contrast × 0.6", change_contrast),
    AcquisitionChange("contrast", 1.4, "Contrast × 1.4", change_contrast),
    AcquisitionChange("brightness", 0.7, "Brightness × 0.7", change_brightness),
    AcquisitionChange("brightness", 1.3, "Brightness × 1.3", change_brightness),
    AcquisitionChange("blur", 0.0075, "Blur, 0.75 % of the side", blur),
    AcquisitionChange("blur", 0.015, "Blur, 1.5 % of the side", blur),
    AcquisitionChange("sharpening", 1, "Sharpening, once", sharpen),
    AcquisitionChange("sharpening", 2, "Sharpening, twice", sharpen),
    AcquisitionChange("jpeg", 50, "JPEG quality 50", compress_as_jpeg),
    AcquisitionChange("jpeg", 20, "JPEG quality 20", compress_as_jpeg),
    AcquisitionChange("aspect", 1.15, "15 % wider", stretch, moves_pixels=True),
    AcquisitionChange("aspect", 0.87, "15 % taller", stretch, moves_pixels=True),
    AcquisitionChange("crop", 0.04, "4 % of each border cut off", crop_border, moves_pixels=True),
    AcquisitionChange("crop", 0.08, "8 % of each border cut off", crop_border, moves_pixels=True),
    AcquisitionChange("rotation", -7, "Rotated by 7° clockwise", rotate, moves_pixels=True),
    AcquisitionChange("rotation", 7, "Rotated by 7° counterclockwise", rotate, moves_pixels=True),
)
"""The changes of the stress test, in the order of reports. Figures can be compared only under the same changes."""

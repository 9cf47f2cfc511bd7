"""Decodes the pixels of a file whose header was read, and refuses coded pixels that are damaged."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.headers import ImageHeader

_GREY_MODES = ("1", "L", "LA", "I;16", "LA;16")
_REDUCED_DECODING = (
    (512, cv2.IMREAD_REDUCED_COLOR_8),
    (256, cv2.IMREAD_REDUCED_COLOR_4),
    (128, cv2.IMREAD_REDUCED_COLOR_2),
)
"""Smallest sides in pixels from which an image is decoded at an eighth, a quarter or half of its size (JPEG only)."""


def decode_pixels(data: bytes, header: ImageHeader) -> NDArray[np.uint8]:
    """Decode a file to grey. Grey levels of more than 8 bits are stretched from their own range to 0 to 255.

    A JPEG is decoded strictly: whatever makes libjpeg warn is refused. OpenCV would fill in missing pixels and skip
    surplus bytes, with no more than a line on stderr.

    Args:
        data: the whole content of the file.
        header: its header.

    Returns:
        uint8 ``(height, width)``, turned as EXIF says.

    Raises:
        ImageError: ``corrupt``.
    """
    if header.bit_depth > 8:
        return _stretch(_decode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH))
    grey = _decode_jpeg(data, "GRAY") if header.format == "JPEG" else None
    if grey is None or header.may_be_rotated:
        return _decode(data, cv2.IMREAD_GRAYSCALE)
    return grey[:, :, 0]


def decode_and_find_colour(data: bytes, header: ImageHeader, tolerance: int) -> tuple[NDArray[np.uint8], bool]:
    """Decode a file to grey as :func:`decode_pixels` does, and tell whether a pixel is coloured.

    An image that is stored with three channels can still be grey. It is decoded once: where the three are equal, each
    of them is the luma. Only an image with different channels is decoded again, to its luma.

    Args:
        data: the whole content of the file.
        header: its header.
        tolerance: largest difference of a grey pixel's channels, in grey levels.

    Returns:
        uint8 ``(height, width)``, and whether any pixel is coloured.

    Raises:
        ImageError: ``corrupt``.
    """
    if header.mode in _GREY_MODES:
        return decode_pixels(data, header), False
    colours = _decode_jpeg(data, "BGR") if header.format == "JPEG" else None
    if colours is None or header.may_be_rotated:
        colours = _decode(data, cv2.IMREAD_COLOR)
    spread = _channel_spread(colours)
    needs_luma = header.bit_depth > 8 or spread.any()
    grey = decode_pixels(data, header) if needs_luma else cv2.extractChannel(colours, 0)
    return grey, bool((spread > tolerance).any())


def coloured_share(data: bytes, header: ImageHeader, tolerance: int) -> float:
    """Compute the share of an image's pixels that are coloured.

    A large JPEG is decoded at a smaller size, which is much faster; single coloured pixels are then lost.

    Args:
        data: the whole content of the file.
        header: its header.
        tolerance: largest difference of a grey pixel's channels, in grey levels.

    Returns:
        0 to 1. A file with one channel gives 0 without being decoded.

    Raises:
        ImageError: ``corrupt``.
    """
    if header.mode in _GREY_MODES:
        return 0.0
    side = min(header.width, header.height)
    flags = next((flags for smallest, flags in _REDUCED_DECODING if side >= smallest), cv2.IMREAD_COLOR)
    spread = _channel_spread(_decode(data, flags))
    return float(np.count_nonzero(spread > tolerance) / spread.size)


def shrink(grey: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrink an image, if it is larger.

    Args:
        grey: ``(height, width)``, uint8.
        side: largest side of the result in pixels.

    Returns:
        The image with the same ratio of its sides.
    """
    scale = side / max(grey.shape)
    if scale >= 1:
        return grey
    height, width = (max(1, round(scale * length)) for length in grey.shape)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _channel_spread(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return how much the channels of each pixel differ, in grey levels."""
    blue, green, red = cv2.split(colours)
    low, high = cv2.min(cv2.min(blue, green), red), cv2.max(cv2.max(blue, green), red)
    spread: NDArray[np.uint8] = cv2.subtract(high, low)
    return spread


def _decode_jpeg(data: bytes, colours: Literal["GRAY", "BGR"]) -> NDArray[np.uint8] | None:
    """Decode a JPEG strictly, as stored, to ``(height, width, channels)``.

    None stands for sampling factors that TurboJPEG does not know.

    Such files are sound. OpenCV reads them, but finds no damage inside the coded pixels.
    """
    try:
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        message = str(error)
    else:
        return image
    if "subsampling" in message:
        return None
    if "memory" in message:
        raise MemoryError
    raise ImageError("corrupt", f"the coded pixels are damaged ({message}); get the file again")


def _decode(data: bytes, flags: int) -> NDArray[Any]:
    try:
        image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None  # the file is not at fault
        image = None
    if image is None:
        raise ImageError("corrupt", "the decoder refused the content; get the file again")
    return image


def _stretch(deep: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(deep.min()), float(deep.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    stretched: NDArray[np.uint8] = np.rint((deep.astype(np.float32) - low) * scale).astype(np.uint8)
    return stretched

"""Decodes the pixels of a file whose header was read, and refuses coded pixels that are damaged."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.headers import ImageHeader

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
    grey = _decode_jpeg(data) if header.format == "JPEG" else None
    if grey is None or header.may_be_rotated:
        return _decode(data, cv2.IMREAD_GRAYSCALE)
    return grey


def is_grey(data: bytes, header: ImageHeader, tolerance: int) -> bool:
    """Tell whether an image has no coloured pixel. An image that is stored with three channels can still be grey.

    Args:
        data: the whole content of the file.
        header: its header.
        tolerance: largest difference of a grey pixel's channels, in grey levels.

    Returns:
        Whether all pixels are grey.

    Raises:
        ImageError: ``corrupt``.
    """
    return coloured_share(data, header, tolerance) == 0


def coloured_share(data: bytes, header: ImageHeader, tolerance: int, *, coarse: bool = False) -> float:
    """Compute the share of an image's pixels that are coloured.

    Args:
        data: the whole content of the file.
        header: its header.
        tolerance: largest difference of a grey pixel's channels, in grey levels.
        coarse: decode at a smaller size where that is much faster; single coloured pixels are then lost.

    Returns:
        0 to 1. A file with one channel gives 0 without being decoded.

    Raises:
        ImageError: ``corrupt``.
    """
    if header.mode in ("1", "L", "LA", "I;16", "LA;16"):
        return 0.0
    side = min(header.width, header.height) if coarse else 0
    flags = next((flags for smallest, flags in _REDUCED_DECODING if side >= smallest), cv2.IMREAD_COLOR)
    blue, green, red = cv2.split(_decode(data, flags))
    low, high = cv2.min(cv2.min(blue, green), red), cv2.max(cv2.max(blue, green), red)
    return float(np.count_nonzero(high - low > tolerance) / low.size)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """Decode a JPEG strictly, as stored; None for sampling factors that TurboJPEG does not know.

    Such files are sound. OpenCV reads them, but finds no damage inside the coded pixels.
    """
    try:
        grey: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY", strict=True)[:, :, 0]
    except ValueError as error:
        message = str(error)
    else:
        return grey
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

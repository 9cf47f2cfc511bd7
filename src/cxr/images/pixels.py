"""Decoding the pixels of a file whose header has been read, without letting the decoder guess anything."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.headers import Header, Piece

# Zero bytes that a decoder may look ahead into after the coded pixels, and last bytes that no whole file can
# do without. 8 bytes are enough for libjpeg to read each of 5,888 radiographs; without 1 byte it reads none.
_AHEAD = bytes(16)
_ESSENTIAL = 2
_WIDEST = 65_500
_COARSE = ((512, cv2.IMREAD_REDUCED_COLOR_8), (256, cv2.IMREAD_REDUCED_COLOR_4), (128, cv2.IMREAD_REDUCED_COLOR_2))
"""Smallest sides from which a picture is decoded with an eighth, a quarter, half of them: JPEG allows it."""


def decode_pixels(data: bytes, header: Header) -> NDArray[np.uint8]:
    """Decode a file to grey; deeper grey levels are stretched from their own range to 0 to 255.

    Args:
        data: the whole content of the file.
        header: its header.

    Returns:
        uint8 ``(height, width)``.

    Raises:
        ImageError: ``corrupt``.
    """
    if header.bit_depth > 8:
        deep = _decode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
        if deep is None:
            raise _refused()
        return _stretch(deep)
    for piece in header.pieces:
        _check_piece(data, header, piece)
    grey: NDArray[np.uint8] | None = _decode(data, cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise _refused()
    return grey


def is_grey(data: bytes, header: Header, tolerance: int) -> bool:
    """Tell whether a picture has no coloured pixel, also where it is stored with three channels.

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


def coloured_share(data: bytes, header: Header, tolerance: int, *, coarse: bool = False) -> float:
    """Share of a picture's pixels that are coloured.

    Args:
        data: the whole content of the file.
        header: its header.
        tolerance: largest difference of a grey pixel's channels, in grey levels.
        coarse: look at a smaller picture where that is much quicker; single coloured pixels are lost.

    Returns:
        0 to 1; 0 without decoding where the file has one channel.

    Raises:
        ImageError: ``corrupt``.
    """
    if header.mode in ("1", "L", "LA", "I;16", "LA;16"):
        return 0.0
    small = min(header.width, header.height) if coarse else 0
    way = next((way for side, way in _COARSE if small >= side), cv2.IMREAD_COLOR)
    colour = _decode(data, way)
    if colour is None:
        raise _refused()
    first, second, third = cv2.split(colour)
    low, high = cv2.min(cv2.min(first, second), third), cv2.max(cv2.max(first, second), third)
    return float(np.count_nonzero(high - low > tolerance) / low.size)


def _refused() -> ImageError:
    return ImageError("corrupt", "the decoder refused the content; get the file again")


def _decode(data: bytes, flags: int) -> NDArray[Any] | None:
    try:
        image: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None  # no fault of the file's
        return None
    return image


def _stretch(deep: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(deep.min()), float(deep.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    stretched: NDArray[np.uint8] = np.rint((deep.astype(np.float32) - low) * scale).astype(np.uint8)
    return stretched


def _check_piece(data: bytes, header: Header, piece: Piece) -> None:
    """Refuse a JPEG whose coded pixels end too early or too late.

    libjpeg fills up what is missing and skips what is too much, with no more than a line on stderr. As a file
    of its own without an end mark, a whole piece decodes if there are a few bytes to look ahead into, and one
    that ran out of bytes does not; without its last bytes a whole piece fails, and one with bytes left over
    does not. The eighth of the size is enough to see it.
    """
    if piece.width > _WIDEST:
        return
    size = struct.pack(">HH", piece.height, piece.width)
    head = data[: header.size_at] + size + data[header.size_at + 4 : header.pieces[0].start]
    body = data[piece.start : piece.end]
    if _decode(head + body + _AHEAD, cv2.IMREAD_REDUCED_GRAYSCALE_8) is None:
        raise ImageError("corrupt", f"coded pixels are missing before byte {piece.end}; get the file again")
    if len(body) <= _ESSENTIAL:
        return
    if _decode(head + body[:-_ESSENTIAL], cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None:
        raise ImageError("corrupt", f"coded pixels are damaged before byte {piece.end}; get the file again")

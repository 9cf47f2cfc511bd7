"""Decodes one radiograph strictly, in this process: a damaged or unsuitable file is refused with its problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.dicom.reader import is_dicom, read_dicom
from cxr.images.headers import ImageHeader, read_header
from cxr.images.pixels import coloured_share, decode_pixels
from cxr.images.reading_options import ReadingOptions

COLOUR_TOLERANCE = 8


@dataclass(frozen=True)
class DecodedImage:
    """An image as decoded, before any recipe.

    Attributes:
        grey: uint8 ``(height, width)``, 0 to 255, as :func:`cxr.images.decoding.decode_grey` returns it.
        coloured_share: share of its pixels that are coloured, 0 to 1.
        warnings: kinds of problem (keys of :data:`cxr.images.problems.PROBLEMS`) in spite of which it was read, with
            their descriptions.
    """

    grey: NDArray[np.uint8]
    coloured_share: float = 0.0
    warnings: tuple[tuple[str, str], ...] = ()


def describe_warnings(warnings: Sequence[tuple[str, str]]) -> str:
    """Write warnings as one text for a cell of a table.

    Args:
        warnings: kinds of problem and their descriptions.

    Returns:
        For example ``"depth_16: ...; other_modality: ..."``; empty if there are none.
    """
    return "; ".join(f"{kind}: {detail}" for kind, detail in warnings)


def decode_in_process(data: bytes, options: ReadingOptions) -> DecodedImage:
    """Decode a file in this process; :func:`cxr.images.decoding.decode_image` says how.

    Damage can make a decoder of compressed DICOM pixels end the process.

    Args:
        data: the whole content of the file.
        options: what is accepted.

    Returns:
        The decoded image.

    Raises:
        ImageError: as :func:`cxr.images.decoding.decode_image`.
    """
    header, grey = decode_header_and_grey(data, options)
    warnings = tuple(unusual_header(header).items())
    if header.format == "DICOM":
        return DecodedImage(grey, warnings=warnings)
    return DecodedImage(grey, coloured_share(data, header, COLOUR_TOLERANCE), warnings)


def decode_header_and_grey(data: bytes, options: ReadingOptions) -> tuple[ImageHeader, NDArray[np.uint8]]:
    """Decode a file in this process to its header and its grey levels."""
    if is_dicom(data):
        return read_dicom(data, options)
    header = read_header(data)
    refuse_header(header, options.max_pixels)
    if header.bit_depth > 8 and not options.scale_16_bit:
        detail = f"expected 8 bits per channel, received bit_depth={header.bit_depth}"
        raise ImageError("depth_16", f"{detail}; convert it, or set scale_16_bit to true to have it scaled")
    return header, decode_pixels(data, header)


def unusual_header(header: ImageHeader) -> dict[str, str]:
    """Return the problems in spite of which a file is read, if the options accept them; no text has a semicolon."""
    problems: dict[str, str] = {}
    if header.bit_depth > 8 and header.format != "DICOM":  # DICOM says which of its values are black and white
        problems["depth_16"] = (
            f"bit_depth={header.bit_depth}, the range from the smallest to the largest value is stretched to 0 to 255"
        )
    if header.other_modality:
        problems["other_modality"] = "a modality that the DICOM standard does not know, read as a radiograph"
    return problems


def refuse_header(header: ImageHeader, max_pixels: int) -> None:
    """Refuse an image that is too large, animated or in CMYK."""
    if header.width * header.height > max_pixels:
        size = f"{header.width}x{header.height}"
        raise ImageError(
            "too_large", f"expected at most {max_pixels} pixels, received size={size}; send a smaller image"
        )
    if header.animated:
        raise ImageError("animated", "the file holds more than one image; export one of them")
    if header.mode == "CMYK":
        raise ImageError("cmyk", "expected grey or RGB, received mode=CMYK; export it as grey")

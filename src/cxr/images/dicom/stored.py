"""Decodes the stored pixel values of a DICOM file after checking that the coded image has the size in the tags."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.headers import read_header
from cxr.images.pixels import decode_pixels

if TYPE_CHECKING:
    from pydicom import Dataset

JPEG = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
RLE = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS = frozenset(
    {
        "1.2.840.10008.1.2.4.57",  # lossless
        "1.2.840.10008.1.2.4.70",  # lossless, first-order prediction
        "1.2.840.10008.1.2.4.80",  # JPEG-LS
        "1.2.840.10008.1.2.4.81",  # JPEG-LS, near-lossless
    }
)
NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"})
SUPPORTED_SYNTAXES = NATIVE | JPEG_LOSSLESS | JPEG_2000 | {JPEG, JPEG_EXTENDED, RLE}
"""Transfer syntaxes that are read. Video, high-throughput JPEG 2000 and JPEG XL are not."""

_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_END_MARKER = b"\xff\xd9"


def decode_stored_values(dataset: Dataset, syntax: str) -> NDArray[Any]:
    """Decode the pixels of one grey image.

    Args:
        dataset: elements that describe the image, with ``PixelData``; its ``file_meta`` states the transfer syntax.
        syntax: the transfer syntax.

    Returns:
        ``(rows, columns)`` uint8, int8, uint16 or int16.

    Raises:
        ImageError: ``truncated``, ``corrupt`` or ``unsupported``; for JPEG also those of
            :func:`cxr.images.headers.read_header`.
    """
    from pydicom.pixels.decoders.base import get_decoder

    size = (int(dataset.Rows), int(dataset.Columns))
    if syntax in NATIVE:
        _check_length(dataset, size)
        plugin = ""
    else:
        frame = _first_frame(dataset)
        if syntax in (JPEG, JPEG_EXTENDED):
            return _decode_jpeg(frame, dataset, size)
        if syntax != RLE:
            _check_frame(frame, syntax, size)
        plugin = "pydicom" if syntax == RLE else "gdcm"
    pixels, _ = get_decoder(syntax).as_array(dataset, index=0, raw=True, decoding_plugin=plugin)
    values: NDArray[Any] = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    if values.shape != size:
        raise _wrong_size(values.shape[1], values.shape[0], size)
    return values


def _check_length(dataset: Dataset, size: tuple[int, int]) -> None:
    expected, received = size[0] * size[1] * int(dataset.BitsAllocated) // 8, len(dataset.PixelData)
    if received < expected:
        raise ImageError("truncated", f"expected {expected} bytes of pixels, received bytes={received}")
    if received > expected + expected % 2:
        raise ImageError("corrupt", f"expected {expected} bytes of pixels, received bytes={received}")


def _first_frame(dataset: Dataset) -> bytes:
    """Return the coded image, joined if it is stored in several fragments."""
    from pydicom.encaps import get_frame

    if not dataset["PixelData"].is_undefined_length:
        raise ImageError("corrupt", "expected the compressed pixels of a DICOM file in items, received none")
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def _decode_jpeg(frame: bytes, dataset: Dataset, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a JPEG frame like a JPEG file, so that damage inside it is found."""
    header = read_header(frame)
    if header.bit_depth != 8 or int(dataset.BitsAllocated) != 8:
        raise ImageError("unsupported", "lossy JPEG of 12 bits; export the image uncompressed or as JPEG 2000")
    if header.format != "JPEG" or header.mode != "L" or int(dataset.get("PixelRepresentation") or 0):
        raise ImageError("corrupt", f"expected a grey JPEG inside the DICOM file, received mode={header.mode}")
    if (header.height, header.width) != size:
        raise _wrong_size(header.width, header.height, size)
    return decode_pixels(frame, header)


def _check_frame(frame: bytes, syntax: str, size: tuple[int, int]) -> None:
    """Refuse a frame without an end marker or with a size other than in the tags.

    Decoders allocate the size that the frame announces.
    """
    try:
        width, height, channels = _size_of_jpeg_2000(frame) if syntax in JPEG_2000 else _size_of_jpeg(frame)
    except struct.error:
        raise ImageError("truncated", f"the coded pixels end after {len(frame)} bytes") from None
    if (height, width) != size:
        raise _wrong_size(width, height, size)
    if channels != 1:
        raise ImageError("corrupt", f"expected one grey level per pixel, received channels={channels}")
    if not frame[-4:].rstrip(b"\0").endswith(_END_MARKER):
        raise ImageError("truncated", "the coded pixels have no end marker")


def _size_of_jpeg_2000(frame: bytes) -> tuple[int, int, int]:
    """Return width, height and channels of a JPEG 2000 codestream (ITU-T T.800, annex A.5.1)."""
    if not frame.startswith(b"\xff\x4f\xff\x51"):
        raise ImageError("corrupt", "expected a JPEG 2000 codestream inside the DICOM file")
    right, lower, left, upper = struct.unpack_from(">IIII", frame, 8)
    return right - left, lower - upper, struct.unpack_from(">H", frame, 40)[0]


def _size_of_jpeg(frame: bytes) -> tuple[int, int, int]:
    """Return width, height and channels of a JPEG or JPEG-LS frame (ITU-T T.81, annex B; T.87, annex C)."""
    position = 2
    if not frame.startswith(b"\xff\xd8"):
        raise ImageError("corrupt", "expected a JPEG inside the DICOM file")
    while True:
        marker_start, marker, length = struct.unpack_from(">BBH", frame, position)
        if marker_start != 0xFF or length < 2 or marker in (0xD9, 0xDA):
            raise ImageError("corrupt", f"expected a JPEG segment at byte {position} of the coded pixels")
        if marker in _FRAMES:
            height, width, channels = struct.unpack_from(">HHB", frame, position + 5)
            return width, height, channels
        position += 2 + length


def _wrong_size(width: int, height: int, size: tuple[int, int]) -> ImageError:
    tagged = f"{size[1]}x{size[0]}"
    return ImageError("corrupt", f"expected {tagged} pixels as in the tags, received size={width}x{height}")

"""Stored pixel values of a DICOM object, decoded only when what is coded is as large as the tags say."""

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
JPEG_LIKE = frozenset(
    {
        "1.2.840.10008.1.2.4.57",  # lossless
        "1.2.840.10008.1.2.4.70",  # lossless, first-order prediction
        "1.2.840.10008.1.2.4.80",  # JPEG-LS
        "1.2.840.10008.1.2.4.81",  # JPEG-LS, near-lossless
    }
)
NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"})
READABLE = NATIVE | JPEG_LIKE | JPEG_2000 | {JPEG, JPEG_EXTENDED, RLE}
"""Transfer syntaxes that are read; not among them: video, high-throughput JPEG 2000, JPEG XL."""

_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_END = b"\xff\xd9"


def stored_values(tags: Dataset, syntax: str) -> NDArray[Any]:
    """Decode the pixels of one grey picture.

    Args:
        tags: elements that describe the picture, with ``PixelData``; its ``file_meta`` says the transfer syntax.
        syntax: the transfer syntax.

    Returns:
        ``(rows, columns)`` uint8, int8, uint16 or int16.

    Raises:
        ImageError: ``truncated``, ``corrupt`` or ``unsupported``.
    """
    from pydicom.pixels.decoders.base import get_decoder

    size = (int(tags.Rows), int(tags.Columns))
    if syntax in NATIVE:
        _check_length(tags, size)
        plugin = ""
    else:
        frame = _frame(tags)
        if syntax in (JPEG, JPEG_EXTENDED):
            return _decode_jpeg(frame, tags, size)
        if syntax != RLE:
            _check_coded(frame, syntax, size)
        plugin = "pydicom" if syntax == RLE else "gdcm"
    values, _ = get_decoder(syntax).as_array(tags, index=0, raw=True, decoding_plugin=plugin)
    found: NDArray[Any] = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    if found.shape != size:
        raise _other_size(found.shape[1], found.shape[0], size)
    return found


def _check_length(tags: Dataset, size: tuple[int, int]) -> None:
    expected, received = size[0] * size[1] * int(tags.BitsAllocated) // 8, len(tags.PixelData)
    if received < expected:
        raise ImageError("truncated", f"expected {expected} bytes of pixels, received bytes={received}")
    if received > expected + expected % 2:
        raise ImageError("corrupt", f"expected {expected} bytes of pixels, received bytes={received}")


def _frame(tags: Dataset) -> bytes:
    """The coded picture, joined where it lies in several pieces."""
    from pydicom.encaps import get_frame

    if not tags["PixelData"].is_undefined_length:
        raise ImageError("corrupt", "compressed pixels of a DICOM file lie in items, received none")
    return get_frame(tags.PixelData, 0, number_of_frames=1)


def _decode_jpeg(frame: bytes, tags: Dataset, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A JPEG as any other, so that damage inside it is found too."""
    header = read_header(frame)
    if header.bit_depth != 8 or int(tags.BitsAllocated) != 8:
        raise ImageError("unsupported", "lossy JPEG of 12 bits; export the picture uncompressed or as JPEG 2000")
    if header.format != "JPEG" or header.mode != "L" or int(tags.get("PixelRepresentation") or 0):
        raise ImageError("corrupt", f"expected a grey JPEG inside the DICOM file, received mode={header.mode}")
    if (header.height, header.width) != size:
        raise _other_size(header.width, header.height, size)
    return decode_pixels(frame, header)


def _check_coded(frame: bytes, syntax: str, size: tuple[int, int]) -> None:
    """Refuse coded pixels that have no end, or another size than the tags: decoders allocate what they announce."""
    try:
        width, height, channels = _size_of_2000(frame) if syntax in JPEG_2000 else _size_of_jpeg(frame)
    except struct.error:
        raise ImageError("truncated", f"the coded pixels end after {len(frame)} bytes") from None
    if (height, width) != size:
        raise _other_size(width, height, size)
    if channels != 1:
        raise ImageError("corrupt", f"expected one grey level per pixel, received channels={channels}")
    if not frame[-4:].rstrip(b"\0").endswith(_END):
        raise ImageError("truncated", "the coded pixels have no end mark")


def _size_of_2000(frame: bytes) -> tuple[int, int, int]:
    """Width, height, channels of a JPEG 2000 codestream (ITU-T T.800, annex A.5.1)."""
    if not frame.startswith(b"\xff\x4f\xff\x51"):
        raise ImageError("corrupt", "expected a JPEG 2000 codestream inside the DICOM file")
    right, lower, left, upper = struct.unpack_from(">IIII", frame, 8)
    return right - left, lower - upper, struct.unpack_from(">H", frame, 40)[0]


def _size_of_jpeg(frame: bytes) -> tuple[int, int, int]:
    """Width, height, channels of a JPEG or JPEG-LS (ITU-T T.81, annex B; T.87, annex C)."""
    position = 2
    if not frame.startswith(b"\xff\xd8"):
        raise ImageError("corrupt", "expected a JPEG inside the DICOM file")
    while True:
        mark, marker, length = struct.unpack_from(">BBH", frame, position)
        if mark != 0xFF or length < 2 or marker in (0xD9, 0xDA):
            raise ImageError("corrupt", f"expected a JPEG segment at byte {position} of the coded pixels")
        if marker in _FRAMES:
            height, width, channels = struct.unpack_from(">HHB", frame, position + 5)
            return width, height, channels
        position += 2 + length


def _other_size(width: int, height: int, size: tuple[int, int]) -> ImageError:
    tagged = f"{size[1]}x{size[0]}"
    return ImageError("corrupt", f"expected {tagged} pixels as the tags say, received size={width}x{height}")

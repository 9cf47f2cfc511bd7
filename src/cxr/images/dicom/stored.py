"""Decodes the stored pixel values of a DICOM file after checking that the coded image has the size in the tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.dicom.elements import NATIVE
from cxr.images.dicom.frames import check_run_lengths, measure_jpeg, measure_jpeg_2000
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
SUPPORTED_SYNTAXES = NATIVE | JPEG_LOSSLESS | JPEG_2000 | {JPEG, JPEG_EXTENDED, RLE}
"""Transfer syntaxes that are read. Video, high-throughput JPEG 2000 and JPEG XL are not."""


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
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    size = (int(dataset.Rows), int(dataset.Columns))
    options: dict[str, Any] = {"decoding_plugin": ""}
    if syntax in NATIVE:
        dataset.PixelData = _without_padding(dataset, size)
    else:
        frame = _first_frame(dataset)
        if syntax in (JPEG, JPEG_EXTENDED):
            return _decode_jpeg(frame, dataset, size)
        options["decoding_plugin"] = "pydicom"
        if syntax == RLE:
            check_run_lengths(frame, size[0] * size[1], int(dataset.BitsAllocated) // 8)
        else:
            dataset.PixelData = encapsulate([_checked_frame(frame, syntax, size)], has_bot=False)
            options["decoding_plugin"] = "gdcm"
    has_plain_bits = syntax in NATIVE or syntax == RLE
    if has_plain_bits:
        options["correct_unused_bits"] = False  # pydicom takes it that the unused bits are the upper ones
    pixels, _ = get_decoder(syntax).as_array(dataset, index=0, raw=True, **options)
    values: NDArray[Any] = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    if values.shape != size:
        raise _wrong_size(values.shape[1], values.shape[0], size)
    return _stored_bits(dataset, values) if has_plain_bits else values


def _stored_bits(dataset: Dataset, values: NDArray[Any]) -> NDArray[Any]:
    """Take the bits that hold the value; others may hold an overlay, or nothing (PS3.5, 8.1.1)."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if stored == allocated:
        return values
    high_bit = dataset.get("HighBit")
    above = allocated - 1 - (stored - 1 if high_bit is None else int(high_bit))
    # The upper bits are shifted out; shifting back repeats the sign of a signed value.
    shifted: NDArray[Any] = np.right_shift(np.left_shift(values, above), allocated - stored)
    return shifted


def _without_padding(dataset: Dataset, size: tuple[int, int]) -> bytes:
    """Return the pixels without what follows them: a receiver must accept padding (PS3.5, 8.1.1)."""
    expected, received = size[0] * size[1] * int(dataset.BitsAllocated) // 8, len(dataset.PixelData)
    if received < expected:
        raise ImageError(
            "truncated", f"expected {expected} bytes of pixels, received bytes={received}; get the file again"
        )
    if received >= 2 * expected + expected % 2:
        detail = f"expected {expected} bytes of pixels, received bytes={received}, enough for several images"
        raise ImageError("corrupt", f"{detail}; export one image with tags that say its size")
    return bytes(dataset.PixelData[: expected + expected % 2])


def _first_frame(dataset: Dataset) -> bytes:
    """Return the coded image, joined if it is stored in several fragments."""
    from pydicom.encaps import get_frame

    if not dataset["PixelData"].is_undefined_length:
        raise ImageError(
            "corrupt", "expected the compressed pixels of a DICOM file in items, received none; export it again"
        )
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def _decode_jpeg(frame: bytes, dataset: Dataset, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a JPEG frame like a JPEG file, so that damage inside it is found."""
    header = read_header(frame)
    if header.bit_depth != 8:
        raise ImageError("unsupported", "lossy JPEG of 12 bits; export the image uncompressed or as JPEG 2000")
    if header.format != "JPEG" or header.mode != "L" or int(dataset.get("PixelRepresentation") or 0):
        raise ImageError(
            "corrupt", f"expected a grey JPEG inside the DICOM file, received mode={header.mode}; export it again"
        )
    if (header.height, header.width) != size:
        raise _wrong_size(header.width, header.height, size)
    return decode_pixels(frame, header)


def _checked_frame(frame: bytes, syntax: str, size: tuple[int, int]) -> bytes:
    """Return the coded image without what follows it; refuse one with a size other than in the tags."""
    coded = measure_jpeg_2000(frame) if syntax in JPEG_2000 else measure_jpeg(frame)
    if (coded.height, coded.width) != size:
        raise _wrong_size(coded.width, coded.height, size)
    if coded.channels != 1:
        raise ImageError(
            "corrupt", f"expected one grey level per pixel, received channels={coded.channels}; export it again"
        )
    return coded.content


def _wrong_size(width: int, height: int, size: tuple[int, int]) -> ImageError:
    tagged = f"{size[1]}x{size[0]}"
    return ImageError(
        "corrupt", f"expected {tagged} pixels as in the tags, received size={width}x{height}; export it again"
    )

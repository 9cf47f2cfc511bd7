"""Measures the coded image inside a DICOM file without decoding a pixel: its size, and where it ends.

Decoders allocate the size that a frame announces, and take a frame that ends early for a whole one. Behind the end
mark senders write what they like: zeros, 0xFF, a space (PS3.5, A.4 asks for an even length). It is cut off.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from cxr.errors import ImageError
from cxr.images.headers import FRAMES, SCAN, jpeg_segments

_RLE_HEADER = struct.Struct("<16I")
_JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODE_STREAM_START = b"\xff\x4f\xff\x51"
_TILE_PART, _CODE_STREAM_END = 0xFF90, 0xFFD9


@dataclass(frozen=True)
class CodedFrame:
    """The coded image of a DICOM file.

    Attributes:
        content: from its first byte to its end mark.
        width: pixels per row that it announces.
        height: rows that it announces.
        channels: values per pixel.
    """

    content: bytes
    width: int
    height: int
    channels: int


def measure_jpeg(frame: bytes) -> CodedFrame:
    """Measure a frame of JPEG (ITU-T T.81, annex B) or JPEG-LS (T.87, annex C).

    Args:
        frame: the coded image, and whatever follows it.

    Returns:
        The coded image.

    Raises:
        ImageError: ``corrupt`` or ``truncated``.
    """
    if not frame.startswith(b"\xff\xd8"):
        raise ImageError("corrupt", "expected a JPEG inside the DICOM file; export it again")
    size, image_end, has_scan = b"", 0, False
    for marker, body, end in jpeg_segments(frame, accept_jpeg_ls=True):
        image_end = end
        if marker in FRAMES:
            size = body[1:6]
        has_scan |= marker == SCAN
    if len(size) < 5 or not has_scan:
        raise ImageError("corrupt", "the coded pixels of the DICOM file hold no image; export it again")
    height, width, channels = struct.unpack(">HHB", size)
    return CodedFrame(frame[:image_end], width, height, channels)


def measure_jpeg_2000(frame: bytes) -> CodedFrame:
    """Measure a code stream of JPEG 2000 (ITU-T T.800, annex A), with or without the header of a JP2 file.

    DICOM forbids that header (PS3.5, 8.2.4); some senders write it all the same
    (https://github.com/pydicom/pydicom/issues/2074).

    Args:
        frame: the coded image, and whatever follows it.

    Returns:
        The code stream.

    Raises:
        ImageError: ``corrupt`` or ``truncated``.
    """
    try:
        stream = _find_code_stream(frame) if frame.startswith(_JP2_START) else frame
        if not stream.startswith(_CODE_STREAM_START):
            raise ImageError("corrupt", "expected a JPEG 2000 code stream inside the DICOM file; export it again")
        right, lower, left, upper = struct.unpack_from(">IIII", stream, 8)
        channels = struct.unpack_from(">H", stream, 40)[0]
        return CodedFrame(stream[: _end_of_code_stream(stream)], right - left, lower - upper, channels)
    except struct.error:
        raise _truncated(frame) from None


def check_run_lengths(frame: bytes, pixels: int, bytes_per_pixel: int) -> None:
    """Check that a frame of run lengths (PS3.5, annex G) holds exactly the pixels of the image.

    A decoder takes the first pixels and ignores the rest, so it does not see that some runs are damaged.

    Args:
        frame: the coded image.
        pixels: number of pixels.
        bytes_per_pixel: 1 or 2; each has a segment.

    Raises:
        ImageError: ``corrupt`` or ``truncated``.
    """
    if len(frame) < _RLE_HEADER.size:
        raise _truncated(frame)
    count, *offsets = _RLE_HEADER.unpack_from(frame)
    starts = offsets[:bytes_per_pixel]
    if count != bytes_per_pixel or starts[0] != _RLE_HEADER.size or starts != sorted(starts):
        raise ImageError(
            "corrupt", f"expected {bytes_per_pixel} segments of run lengths, received segments={count}; export it again"
        )
    for start, end in pairwise([*starts, len(frame)]):
        _check_segment(frame[start:end], pixels)


def _check_segment(segment: bytes, pixels: int) -> None:
    decoded = position = 0
    while decoded < pixels:
        if position >= len(segment):
            raise _truncated(segment)
        head = segment[position]
        if head < 128:  # so many bytes as they are
            decoded, position = decoded + head + 1, position + head + 2
        elif head > 128:  # one byte so many times
            decoded, position = decoded + 257 - head, position + 2
        else:
            position += 1
    if decoded > pixels or position > len(segment) or any(segment[position:]):
        raise ImageError(
            "corrupt", f"expected run lengths of {pixels} pixels, received others; the coded pixels are damaged, "
            "get the file again"
        )  # fmt: skip


def _find_code_stream(frame: bytes) -> bytes:
    """Return the content of the box of a JP2 file that holds the code stream (T.800, annex I)."""
    position = 0
    while True:
        length, kind = struct.unpack_from(">I4s", frame, position)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", frame, position + 8)[0], 16
        if kind == b"jp2c":
            return frame[position + head :]
        if length < head:
            raise ImageError(
                "corrupt", f"expected a box of a JP2 file at byte {position} of the coded pixels; export it again"
            )
        position += length


def _end_of_code_stream(stream: bytes) -> int:
    """Return the offset behind the end mark of a code stream, found by the lengths of its parts."""
    position = 2
    while (marker := struct.unpack_from(">H", stream, position)[0]) != _TILE_PART:
        length = struct.unpack_from(">H", stream, position + 2)[0]
        if marker < 0xFF00 or marker == _CODE_STREAM_END or length < 2:
            raise _unexpected_segment(position)
        position += 2 + length
    while marker == _TILE_PART:
        length = struct.unpack_from(">I", stream, position + 6)[0]
        if length == 0:  # the last part, which reaches to the end mark
            end = stream.find(_CODE_STREAM_END.to_bytes(2, "big"), position)
            length = len(stream) if end < 0 else end - position
        elif length < 14:
            raise _unexpected_segment(position)
        position += length
        marker = struct.unpack_from(">H", stream, position)[0]
    if marker != _CODE_STREAM_END:
        raise _unexpected_segment(position)
    return position + 2


def _unexpected_segment(position: int) -> ImageError:
    return ImageError("corrupt", f"expected a segment at byte {position} of the coded pixels; get the file again")


def _truncated(frame: bytes) -> ImageError:
    return ImageError(
        "truncated", f"the coded pixels end after {len(frame)} bytes, before their end mark; get the file again"
    )

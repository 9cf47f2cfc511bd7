"""Headers of JPEG and PNG files, read from the first byte to the end mark without decoding a pixel.

A decoder fills the missing part of a broken file with grey and allocates whatever size the header announces. This
module reads size, bit depth, colour and number of images before decoding, and checks that the file is complete.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from cxr.errors import ImageError

_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_OTHER_FORMATS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"PK\3\4": "zip",
    b"\x1f\x8b": "gzip",
    b"\0\0\0\x0cjP": "JPEG 2000",
}

# In a scan of JPEG 0xFF is followed by 0 (a stuffed byte), a restart marker or another 0xFF; in one of JPEG-LS by less
# than 0x80. Anything else ends the scan.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_LS_SCAN_END = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]", re.DOTALL)
# An entry of EXIF's orientation tag (0x0112) with a value of 2 to 8, in either byte order.
_ROTATION = re.compile(rb"\x01\x12.{6}\x00[\x02-\x08]|\x12\x01.{6}[\x02-\x08]\x00", re.DOTALL)
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_LS_FRAME, _JPEG_LS_PARAMETERS = 0xF7, 0xF8
FRAMES = _JPEG_FRAMES | {_JPEG_LS_FRAME}
"""Markers of the segments that state the size of a JPEG or JPEG-LS."""
SCAN = 0xDA
"""Marker of the segment before coded pixels."""
_SEGMENTS = _JPEG_FRAMES | {0xC4, 0xCC, SCAN, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_APP1, _APP2, _END = 0xE1, 0xE2, 0xD9
_MAX_SCANS = 100
"""Scans of a JPEG. A progressive one has about ten, and each costs the decoder as much as the whole image."""
_PARTS, _BYTES_PER_PART = 1000, 256
"""Segments or chunks that a file may have, and bytes for each further one: encoders write 4,096 bytes and more."""
_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its image before any pixel is decoded.

    Attributes:
        format: ``"JPEG"``, ``"PNG"`` or ``"DICOM"``.
        width: pixels per row, as stored.
        height: rows, as stored.
        mode: channels as Pillow names them: ``"1"``, ``"L"``, ``"LA"``, ``"P"``, ``"RGB"``, ``"RGBA"`` or ``"CMYK"``;
            ``"I;16"`` for more than 8 bits, or for example ``"RGB;16"`` for a PNG of 16 bits.
        bit_depth: bits per channel.
        animated: whether the file holds more than one image.
        may_be_rotated: whether the EXIF data of a JPEG seem to say that the stored image is turned or mirrored.
        enlargement: factors by which height and width of a DICOM image are enlarged so that its pixels become square.
        other_modality: modality of a DICOM file that is not in the standard's list of radiographs; empty otherwise.
    """

    format: str
    width: int
    height: int
    mode: str
    bit_depth: int
    animated: bool = False
    may_be_rotated: bool = False
    enlargement: tuple[float, float] = (1.0, 1.0)
    other_modality: str = ""


def read_header(data: bytes) -> ImageHeader:
    """Read the header of a JPEG or PNG file and check that the file is complete.

    Bytes after the end mark are allowed, because many programs write some.

    Args:
        data: the whole content of the file.

    Returns:
        The header.

    Raises:
        ImageError: ``empty``, ``not_an_image``, ``animated`` (GIF and WebP), ``truncated`` or ``corrupt``.
    """
    if not data:
        raise ImageError("empty", "expected an image, received 0 bytes; get the file again")
    if data.startswith(_JPEG_START):
        return _read_jpeg(data)
    if data.startswith(_PNG_START):
        return _read_png(data)
    if len(data) < len(_PNG_START) and (_JPEG_START.startswith(data) or _PNG_START.startswith(data)):
        raise ImageError("truncated", f"the file ends after {len(data)} bytes; get the file again")
    raise _not_an_image(data)


def _not_an_image(data: bytes) -> ImageError:
    content = next((name for start, name in _OTHER_FORMATS.items() if data.startswith(start)), "")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        content = "WebP"
        if data[12:16] == b"VP8X" and len(data) > 20 and data[20] & 2:
            return ImageError("animated", "a WebP file with several images; export one as PNG or JPEG")
    elif content == "GIF" and data.count(b"\x21\xf9\x04") > 1:
        return ImageError("animated", "a GIF file with several images; export one as PNG or JPEG")
    elif data[128:132] == b"DICM":
        content = "DICOM"
    elif not content:
        content = "text" if all(byte > 8 for byte in data[:512]) else "unknown"
    return ImageError(
        "not_an_image", f"expected a JPEG, PNG or DICOM file, received content={content}; export it as one of them"
    )


def _read_jpeg(data: bytes) -> ImageHeader:
    """Read what the segments of a JPEG file say about its image."""
    frame = b""
    animated = may_be_rotated = has_scan = False
    for marker, body, _ in jpeg_segments(data, accept_jpeg_ls=False):
        if marker in FRAMES:
            frame = body
        animated |= marker == _APP2 and body.startswith(b"MPF\0")
        may_be_rotated |= marker == _APP1 and _ROTATION.search(body) is not None
        has_scan |= marker == SCAN
    if len(frame) < 9 or not has_scan:
        raise ImageError("corrupt", "the JPEG file holds no image; get the file again")
    bit_depth, height, width, channels = struct.unpack(">BHHB", frame[:6])
    if width == 0 or height == 0 or channels not in _JPEG_MODES or len(frame) < 6 + 3 * channels:
        raise ImageError(
            "corrupt", f"JPEG frame of {width}x{height} pixels and {channels} channels; get the file again"
        )
    return ImageHeader("JPEG", width, height, _JPEG_MODES[channels], bit_depth, animated, may_be_rotated)


def jpeg_segments(data: bytes, *, accept_jpeg_ls: bool) -> Iterator[tuple[int, bytes, int]]:
    """Walk through the segments of a JPEG (ITU-T T.81, annex B) or a JPEG-LS (T.87, annex C) up to its end mark.

    Args:
        data: the coded image, and whatever follows it.
        accept_jpeg_ls: whether it may be a JPEG-LS.

    Yields:
        Marker and content of each segment, and the offset behind it and behind the coded pixels that follow it. The end
        mark comes last.

    Raises:
        ImageError: ``truncated`` or ``corrupt``.
    """
    known = _SEGMENTS | {_JPEG_LS_FRAME, _JPEG_LS_PARAMETERS} if accept_jpeg_ls else _SEGMENTS
    scan_end = _SCAN_END
    position = 2
    scans = segments = 0
    while True:
        segments += 1
        _limit_parts(segments, data)
        marker, position = _next_marker(data, position)
        if marker == _END:
            yield marker, b"", position
            return
        if marker not in known:
            raise ImageError(
                "corrupt", f"unexpected JPEG marker 0x{marker:02x} at byte {position - 2}; get the file again"
            )
        body, position = _read_segment(data, position)
        if marker == _JPEG_LS_FRAME:
            scan_end = _JPEG_LS_SCAN_END
        if marker == SCAN:
            scans += 1
            if scans > _MAX_SCANS:
                raise ImageError(
                    "corrupt", f"expected at most {_MAX_SCANS} scans of a JPEG, received more; save it again"
                )
            match = scan_end.search(data, position)
            if match is None:
                raise _truncated(data)
            position = match.start()
        yield marker, body, position


def _limit_parts(count: int, data: bytes) -> None:
    """Refuse a file that was made of tiny parts to keep a reader busy."""
    limit = _PARTS + len(data) // _BYTES_PER_PART
    if count > limit:
        raise ImageError(
            "corrupt", f"expected at most {limit} parts in {len(data)} bytes, received more; save it again"
        )


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """Return the marker at a position and the offset behind it."""
    if position >= len(data):
        raise _truncated(data)
    if data[position] != 0xFF:
        raise ImageError(
            "corrupt", f"expected a JPEG marker at byte {position}, received 0x{data[position]:02x}; get the file again"
        )
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position >= len(data):
        raise _truncated(data)
    return data[position], position + 1


def _read_segment(data: bytes, position: int) -> tuple[bytes, int]:
    """Return the content of the segment at a position and the offset behind it."""
    if position + 2 > len(data):
        raise _truncated(data)
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2:
        raise ImageError("corrupt", f"JPEG segment of {length} bytes at byte {position}; get the file again")
    if position + length > len(data):
        raise _truncated(data)
    return data[position + 2 : position + length], position + length


def _truncated(data: bytes) -> ImageError:
    return ImageError("truncated", f"the image ends after {len(data)} bytes, before its end mark; get the file again")


def _read_png(data: bytes) -> ImageHeader:
    """Read the chunks of a PNG file (ISO/IEC 15948) and verify their checksums."""
    position = len(_PNG_START)
    header: ImageHeader | None = None
    animated = has_pixels = False
    chunks = 0
    while True:
        chunks += 1
        _limit_parts(chunks, data)
        if position + 8 > len(data):
            raise _truncated(data)
        length, chunk_type = struct.unpack(">I4s", data[position : position + 8])
        end = position + 12 + length
        if end > len(data):
            raise _truncated(data)
        body = memoryview(data)[position + 4 : end - 4]
        if zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError("corrupt", f"wrong checksum of the PNG chunk at byte {position}; get the file again")
        if header is None:
            header = _png_header(chunk_type, bytes(body[4:]))
        animated |= chunk_type == b"acTL"
        has_pixels |= chunk_type == b"IDAT"
        position = end
        if chunk_type == b"IEND":
            break
    if not has_pixels:
        raise ImageError("corrupt", "the PNG file holds no image; get the file again")
    return ImageHeader("PNG", header.width, header.height, header.mode, header.bit_depth, animated)


def _png_header(chunk_type: bytes, body: bytes) -> ImageHeader:
    if chunk_type != b"IHDR" or len(body) != 13:
        raise ImageError("corrupt", "the PNG file does not begin with its header chunk; get the file again")
    width, height, bit_depth, colour_type = struct.unpack(">IIBB", body[:10])
    if colour_type not in _PNG_MODES or width == 0 or height == 0:
        raise ImageError(
            "corrupt", f"PNG header of {width}x{height} pixels and colour type {colour_type}; get the file again"
        )
    mode = _PNG_MODES[colour_type]
    if bit_depth == 16:
        mode = "I;16" if mode == "L" else f"{mode};16"
    elif bit_depth == 1 and mode == "L":
        mode = "1"
    return ImageHeader("PNG", width, height, mode, bit_depth)

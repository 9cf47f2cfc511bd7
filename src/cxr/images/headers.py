"""Headers of JPEG and PNG files, walked from the first byte to the end mark without decoding a pixel.

Decoders fill the missing part of a broken file with grey, and allocate what a header announces. Here both
are settled beforehand: size, depth, colour and number of pictures are known, and that the file is whole.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from cxr.errors import ImageError

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"PK\3\4": "zip",
    b"\x1f\x8b": "gzip",
    b"\0\0\0\x0cjP": "JPEG 2000",
}

# In a scan 0xFF is followed by 0 (a stuffed byte), a restart mark or more 0xFF; anything else ends the scan.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SEGMENTS = _FRAMES | {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}


@dataclass(frozen=True)
class Piece:
    """Coded pixels of a JPEG between two restart marks: they decode without the rest of the file.

    Attributes:
        start: offset of the first byte.
        end: offset after the last byte.
        width: pixels per row if the blocks are laid out as one picture.
        height: rows of that picture.
    """

    start: int
    end: int
    width: int
    height: int


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before any pixel is decoded.

    Attributes:
        format: ``"JPEG"`` or ``"PNG"``.
        width: pixels per row, as stored.
        height: rows, as stored.
        mode: Pillow's word for the channels: ``"1"``, ``"L"``, ``"LA"``, ``"P"``, ``"RGB"``, ``"RGBA"`` or
            ``"CMYK"``; ``"I;16"`` or for example ``"RGB;16"`` for a PNG of 16 bits.
        bit_depth: bits per channel.
        animated: whether the file holds more than one picture.
        pieces: coded pixels of a JPEG with one scan, cut at its restart marks; empty for all other files.
        size_at: byte offset of height and width in a JPEG's frame header.
    """

    format: str
    width: int
    height: int
    mode: str
    bit_depth: int
    animated: bool = False
    pieces: tuple[Piece, ...] = ()
    size_at: int = 0


def read_header(data: bytes) -> Header:
    """Walk through a JPEG or PNG file and check that it is whole.

    Bytes after the end mark are allowed: many programs leave some.

    Args:
        data: the whole content of the file.

    Returns:
        The header.

    Raises:
        ImageError: ``empty``, ``not_an_image``, ``animated`` (other formats), ``truncated`` or ``corrupt``.
    """
    if not data:
        raise ImageError("empty", "expected an image, received 0 bytes")
    if data.startswith(_JPEG):
        return _read_jpeg(data)
    if data.startswith(_PNG):
        return _read_png(data)
    if len(data) < len(_PNG) and (_JPEG.startswith(data) or _PNG.startswith(data)):
        raise ImageError("truncated", f"the file ends after {len(data)} bytes")
    raise _not_an_image(data)


def _not_an_image(data: bytes) -> ImageError:
    kind = next((kind for magic, kind in _OTHERS.items() if data.startswith(magic)), "")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "WebP"
        if data[12:16] == b"VP8X" and len(data) > 20 and data[20] & 2:
            return ImageError("animated", "a WebP file with several pictures; export one as PNG or JPEG")
    elif kind == "GIF" and data.count(b"\x21\xf9\x04") > 1:
        return ImageError("animated", "a GIF file with several pictures; export one as PNG or JPEG")
    elif data[128:132] == b"DICM":
        kind = "DICOM"
    elif not kind:
        kind = "text" if all(byte > 8 for byte in data[:512]) else "unknown"
    return ImageError("not_an_image", f"expected a JPEG or PNG file, received content={kind}; convert it")


def _read_jpeg(data: bytes) -> Header:
    """Walk the segments of a JPEG file (ITU-T T.81, annex B)."""
    position, interval, size_at = 2, 0, 0
    frame, marker_of_frame = b"", 0
    scans: list[tuple[int, int]] = []
    animated = False
    while True:
        marker, position = _next_marker(data, position)
        if marker == 0xD9:
            break
        if marker not in _SEGMENTS:
            raise ImageError("corrupt", f"unexpected JPEG mark 0x{marker:02x} at byte {position - 2}")
        body, after = _segment(data, position)
        if marker in _FRAMES:
            frame, marker_of_frame, size_at = body, marker, position + 3
        elif marker == 0xDD:
            interval = int.from_bytes(body[:2], "big")
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            animated = True
        position = after
        if marker == 0xDA:
            end = _SCAN_END.search(data, position)
            if end is None:
                raise _truncated(data)
            scans.append((position, end.start()))
            position = end.start()
    if len(frame) < 9 or not scans:
        raise ImageError("corrupt", "the JPEG file holds no picture")
    precision, height, width, components = struct.unpack(">BHHB", frame[:6])
    if width == 0 or height == 0 or components not in _JPEG_MODES or len(frame) < 6 + 3 * components:
        raise ImageError("corrupt", f"JPEG frame of {width}x{height} pixels and {components} channels")
    pieces: tuple[Piece, ...] = ()
    # The blocks of a progressive file (0xC2) are spread over all its scans: it cannot be cut.
    if len(scans) == 1 and marker_of_frame in (0xC0, 0xC1):
        pieces = _pieces(data, scans[0], (width, height), _block_side(frame, components), interval)
    return Header("JPEG", width, height, _JPEG_MODES[components], precision, animated, pieces, size_at)


def _block_side(frame: bytes, components: int) -> tuple[int, int]:
    """Width and height in pixels of the smallest coded unit."""
    if components == 1:
        return 8, 8
    factors = [frame[7 + 3 * channel] for channel in range(components)]
    return 8 * max(factor >> 4 for factor in factors), 8 * max(factor & 15 for factor in factors)


def _pieces(
    data: bytes, scan: tuple[int, int], size: tuple[int, int], block: tuple[int, int], interval: int
) -> tuple[Piece, ...]:
    """Cut a scan at its restart marks and check that none is missing: they count 0 to 7 in a circle."""
    marks = list(_RESTART.finditer(data, *scan))
    if 0 in block:
        raise ImageError("corrupt", f"JPEG blocks of {block[0]}x{block[1]} pixels")
    units = -(-size[0] // block[0]) * -(-size[1] // block[1])
    expected = -(-units // interval) - 1 if interval else 0
    if len(marks) != expected or any(mark[1][0] != 0xD0 + index % 8 for index, mark in enumerate(marks)):
        raise ImageError("corrupt", f"expected {expected} restart marks in order, received marks={len(marks)}")
    if not marks:
        return (Piece(*scan, *size),)
    starts = [scan[0], *(mark.end() for mark in marks)]
    ends = [*(mark.start() for mark in marks), scan[1]]
    counts = [interval] * expected + [units - interval * expected]
    cuts = zip(starts, ends, counts, strict=True)
    return tuple(Piece(start, end, count * block[0], block[1]) for start, end, count in cuts)


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    if position >= len(data):
        raise _truncated(data)
    if data[position] != 0xFF:
        raise ImageError("corrupt", f"expected a mark at byte {position}, received 0x{data[position]:02x}")
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position >= len(data):
        raise _truncated(data)
    return data[position], position + 1


def _segment(data: bytes, position: int) -> tuple[bytes, int]:
    if position + 2 > len(data):
        raise _truncated(data)
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2:
        raise ImageError("corrupt", f"JPEG segment of {length} bytes at byte {position}")
    if position + length > len(data):
        raise _truncated(data)
    return data[position + 2 : position + length], position + length


def _truncated(data: bytes) -> ImageError:
    return ImageError("truncated", f"the file ends after {len(data)} bytes, before its end mark")


def _read_png(data: bytes) -> Header:
    """Walk the chunks of a PNG file (ISO/IEC 15948) and check their sums."""
    position, chunks = len(_PNG), 0
    header: Header | None = None
    animated, pixels = False, False
    while True:
        if position + 8 > len(data):
            raise _truncated(data)
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        end = position + 12 + length
        if end > len(data):
            raise _truncated(data)
        body = memoryview(data)[position + 4 : end - 4]
        if zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError("corrupt", f"wrong check sum of the PNG chunk at byte {position}")
        if chunks == 0:
            header = _png_header(kind, bytes(body[4:]))
        animated |= kind == b"acTL"
        pixels |= kind == b"IDAT"
        position, chunks = end, chunks + 1
        if kind == b"IEND":
            break
    if header is None or not pixels:
        raise ImageError("corrupt", "the PNG file holds no picture")
    return Header(header.format, header.width, header.height, header.mode, header.bit_depth, animated)


def _png_header(kind: bytes, body: bytes) -> Header:
    if kind != b"IHDR" or len(body) != 13:
        raise ImageError("corrupt", "the PNG file does not begin with its header chunk")
    width, height, depth, colour = struct.unpack(">IIBB", body[:10])
    if colour not in _PNG_MODES or width == 0 or height == 0:
        raise ImageError("corrupt", f"PNG header of {width}x{height} pixels and colour type {colour}")
    mode = _PNG_MODES[colour]
    if depth == 16:
        mode = "I;16" if mode == "L" else f"{mode};16"
    elif depth == 1 and mode == "L":
        mode = "1"
    return Header("PNG", width, height, mode, depth)

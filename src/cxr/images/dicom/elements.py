"""Elements of a DICOM file, walked from the first byte to the last by their lengths (DICOM PS3.5, chapter 7).

A reader that is lenient takes a cut file for a whole one. Here each length must fit, and only the elements that a
picture needs are looked at: those that tell of a patient are stepped over and never become values.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from cxr.errors import ImageError

DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"

_MARK, _MARK_AT = b"DICM", 128
_PIXEL_DATA = 0x7FE00010
_META_STARTS = (b"\x02\x00\x00\x00UL\x04\x00", b"\x02\x00\x01\x00OB\x00\x00")
"""First elements of a file without preamble: the length or the version of its meta information."""

_TRANSFER_SYNTAX = 0x00020010
_ITEM, _ITEM_END, _ITEMS_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_UNDEFINED = 0xFFFFFFFF
_DEEPEST = 16


@dataclass(frozen=True)
class Encoding:
    """How the elements are written.

    Attributes:
        implicit: whether the types of values are left out.
        little: whether the lowest byte comes first.
    """

    implicit: bool = False
    little: bool = True


@dataclass(frozen=True)
class Elements:
    """The elements of a file that were asked for.

    Attributes:
        syntax: the transfer syntax, a UID: how elements and pixels are coded.
        encoding: how ``found`` is written.
        found: the elements that were asked for, as they stand in the file, one after the other.
        tags: their tags.
    """

    syntax: str
    encoding: Encoding
    found: bytes
    tags: frozenset[int]


def meta_start(data: bytes) -> int | None:
    """Find where the elements of a DICOM file begin.

    Args:
        data: the whole content of the file, or its first 200 bytes.

    Returns:
        132 after a preamble, 0 where the file starts with its meta information; None for any other content.
    """
    if data[_MARK_AT : _MARK_AT + len(_MARK)] == _MARK:
        return _MARK_AT + len(_MARK)
    return 0 if data.startswith(_META_STARTS) else None


def read_elements(data: bytes, wanted: Collection[int], *, max_inflated: int) -> Elements:
    """Walk through a DICOM file, check that it is whole, and cut out some elements.

    Args:
        data: the whole content of the file.
        wanted: tags of the elements to cut out.
        max_inflated: largest size in bytes of the elements of a deflated file.

    Returns:
        The elements.

    Raises:
        ImageError: ``not_an_image``, ``truncated``, ``corrupt`` or ``too_large``.
    """
    position = meta_start(data)
    if position is None:
        raise ImageError("not_an_image", "expected a DICOM file")
    syntax, position = _read_meta(data, position)
    if syntax == DEFLATED:
        data, position = _inflate(data[position:], max_inflated), 0
    encoding = Encoding(implicit=syntax == _IMPLICIT, little=syntax != _BIG_ENDIAN)
    pieces: dict[int, bytes] = {}
    for tag, start, _, end in _walk(data, position, encoding):
        if tag not in wanted:
            continue
        if tag in pieces:
            raise ImageError("corrupt", f"the DICOM element {_name(tag)} stands in the file twice")
        pieces[tag] = data[start:end]
    return Elements(syntax, encoding, b"".join(pieces[tag] for tag in sorted(pieces)), frozenset(pieces))


def _read_meta(data: bytes, position: int) -> tuple[str, int]:
    """Transfer syntax, and where the meta information ends (it is always explicit, lowest byte first)."""
    syntax = ""
    end = position
    for tag, _, value, after in _walk(data, position, Encoding(), group=2):
        end = after
        if tag == _TRANSFER_SYNTAX:
            syntax = data[value:after].rstrip(b"\0 ").decode("ascii", "replace")
    if not syntax:
        raise ImageError("corrupt", "the DICOM file does not say how its pixels are coded (transfer syntax)")
    return syntax, end


def _inflate(packed: bytes, limit: int) -> bytes:
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = unpacking.decompress(packed, limit)
    except zlib.error:
        raise ImageError("corrupt", "the deflated content of the DICOM file is damaged") from None
    if unpacking.unconsumed_tail:
        raise ImageError("too_large", f"expected at most {limit} bytes when inflated, the DICOM file holds more")
    if not unpacking.eof:
        raise _truncated(len(packed))
    return data


def _walk(
    data: bytes, position: int, encoding: Encoding, *, group: int | None = None, depth: int = 0
) -> Iterator[tuple[int, int, int, int]]:
    """Step from element to element: tag, where it starts, where its value starts, where it ends.

    It ends with the file, after the last element of ``group``, or after the end mark of an item if ``depth`` is not 0.
    """
    end = len(data)
    while position < end or depth:
        start = position
        if not depth and group is None and end - position < 8 and not any(data[position:]):
            return  # a few zero bytes that fill up a block
        if group is not None and data[position : position + 2] != group.to_bytes(2, "little"):
            return  # not looked at further: it may be written in another way
        tag, kind, length, position = _head(data, position, encoding)
        if tag == _ITEM_END and depth:
            yield tag, start, position, position
            return
        if tag >> 16 == 0xFFFE:
            raise _unexpected(start)
        value = position
        if length == _UNDEFINED:
            inner = Encoding(implicit=True) if kind == b"UN" else encoding
            if kind not in (b"SQ", b"UN", b"OB", b"OW", b""):
                raise _unexpected(start)
            position = _end_of_items(data, position, inner, depth, nested=tag != _PIXEL_DATA)
        else:
            position += length
        if position > end:
            raise _truncated(end)
        yield tag, start, value, position


def _head(data: bytes, position: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Tag, type (empty if not written), length of the value, where the value starts."""
    order = "<" if encoding.little else ">"
    try:
        group, number = struct.unpack_from(f"{order}HH", data, position)
        if encoding.implicit or group == 0xFFFE:
            length = struct.unpack_from(f"{order}I", data, position + 4)[0]
            return group << 16 | number, b"", length, position + 8
        kind = data[position + 4 : position + 6]
        if not (len(kind) == 2 and kind.isalpha() and kind.isupper()):
            raise _unexpected(position) if len(kind) == 2 else _truncated(len(data))
        if kind in _LONG:
            return group << 16 | number, kind, struct.unpack_from(f"{order}I", data, position + 8)[0], position + 12
        return group << 16 | number, kind, struct.unpack_from(f"{order}H", data, position + 6)[0], position + 8
    except struct.error:
        raise _truncated(len(data)) from None


def _end_of_items(data: bytes, position: int, encoding: Encoding, depth: int, *, nested: bool) -> int:
    """Where a list of items of unknown length ends; items of pixels are not nested."""
    if depth >= _DEEPEST:
        raise ImageError("corrupt", f"DICOM sequences are nested more than {_DEEPEST} deep")
    while True:
        start = position
        tag, _, length, position = _head(data, position, encoding)
        if tag == _ITEMS_END:
            return position
        if tag != _ITEM or (length == _UNDEFINED and not nested):
            raise _unexpected(start)
        if length == _UNDEFINED:
            position = max(end for *_, end in _walk(data, position, encoding, depth=depth + 1))
        else:
            position += length
        if position > len(data):
            raise _truncated(len(data))


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _unexpected(position: int) -> ImageError:
    return ImageError("corrupt", f"expected a DICOM element at byte {position}; get the file again")


def _truncated(size: int) -> ImageError:
    return ImageError("truncated", f"the DICOM elements end after {size} bytes, inside one of them")

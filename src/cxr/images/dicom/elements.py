"""Reads the elements of a DICOM file one after the other by their lengths (DICOM PS3.5, chapter 7).

A lenient reader accepts a truncated file as complete. Here each length must fit, and only the elements that an image
needs are read. Elements about the patient are skipped and never become values.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from cxr.errors import ImageError

DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
NATIVE = frozenset({_IMPLICIT, _EXPLICIT, _BIG_ENDIAN, DEFLATED})
"""Transfer syntaxes with uncompressed pixels."""

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_MAX_UID = 64
_PREFIX, _PREFIX_OFFSET = b"DICM", 128
_PIXEL_DATA = 0x7FE00010
_META_STARTS = (b"\x02\x00\x00\x00UL\x04\x00", b"\x02\x00\x01\x00OB\x00\x00")
"""First elements of a file without a preamble: the length or the version of its meta information."""

_TRANSFER_SYNTAX = 0x00020010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_VALUE_TYPES = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG_TYPES = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_UNDEFINED_LENGTH = 0xFFFFFFFF
_MAX_DEPTH = 16
_FIRST_GROUP = 8
"""Group of the first elements of an image, where no meta information precedes them."""
_MAX_FIRST_VALUE = 256
"""Bytes that the value of the first element may have in a file without meta information."""


@dataclass(frozen=True)
class ElementEncoding:
    """How the elements are written.

    Attributes:
        implicit: whether the types of values (VR) are omitted.
        little_endian: whether the lowest byte comes first.
    """

    implicit: bool = False
    little_endian: bool = True


@dataclass(frozen=True)
class DicomElements:
    """The requested elements of a file.

    Attributes:
        syntax: UID of the transfer syntax: how elements and pixels are encoded. For uncompressed pixels it is that of
            the elements, whatever the file says.
        encoding: how ``content`` is written.
        content: the requested elements, as in the file, one after the other.
    """

    syntax: str
    encoding: ElementEncoding
    content: bytes


def is_uid(text: str) -> bool:
    """Tell whether a text is a UID (DICOM PS3.5, 9.1)."""
    return len(text) <= _MAX_UID and _UID.fullmatch(text) is not None


def find_elements_start(data: bytes) -> int | None:
    """Find where the elements of a DICOM file begin.

    Old archives write files without preamble, and some without the meta information that says how the rest is written.
    Such a file is recognised by its first two elements, which an image has in group 8.

    Args:
        data: the whole content of the file, or its first 512 bytes.

    Returns:
        132 after a preamble, 0 where the file starts with its meta information or with the elements of an image, None
        for any other content.
    """
    if data[_PREFIX_OFFSET : _PREFIX_OFFSET + len(_PREFIX)] == _PREFIX:
        return _PREFIX_OFFSET + len(_PREFIX)
    return 0 if data.startswith(_META_STARTS) or _starts_with_elements(data) else None


def _starts_with_elements(data: bytes) -> bool:
    encoding = _find_encoding(data, 0, _EXPLICIT)
    try:
        first, _, length, value_start = _read_element_head(data, 0, encoding)
        if first >> 16 != _FIRST_GROUP or length > _MAX_FIRST_VALUE or length % 2:
            return False
        second, value_type, *_ = _read_element_head(data, value_start + length, encoding)
    except ImageError:
        return False
    return first < second < 0x00300000 and (encoding.implicit or value_type in _VALUE_TYPES)


def read_transfer_syntax(data: bytes) -> str:
    """Read how a file says that its elements and pixels are coded.

    Args:
        data: the whole content of a DICOM file.

    Returns:
        UID of the transfer syntax; empty if the file states none.

    Raises:
        ImageError: ``truncated`` or ``corrupt``.
    """
    return _read_meta_information(data, find_elements_start(data) or 0)[0]


def read_elements(data: bytes, tags: Collection[int], *, max_inflated: int) -> DicomElements:
    """Walk through a DICOM file, check that it is complete, and extract some elements.

    Args:
        data: the whole content of the file.
        tags: tags of the elements to extract.
        max_inflated: largest size in bytes of the elements of a deflated file.

    Returns:
        The elements.

    Raises:
        ImageError: ``not_an_image``, ``truncated``, ``corrupt`` or ``too_large``.
    """
    start = find_elements_start(data)
    if start is None:
        raise ImageError("not_an_image", "expected a DICOM file")
    syntax, position = _read_meta_information(data, start)
    if syntax == DEFLATED:
        data, position = _inflate(data[position:], max_inflated), 0
    encoding = _find_encoding(data, position, syntax)
    syntax_of_elements = syntax
    if syntax in ("", _IMPLICIT, _EXPLICIT, _BIG_ENDIAN):
        explicit = _EXPLICIT if encoding.little_endian else _BIG_ENDIAN
        syntax_of_elements = _IMPLICIT if encoding.implicit else explicit
    elements: dict[int, bytes] = {}
    for tag, start, _, end in _walk(data, position, encoding):
        if tag not in tags:
            continue
        if tag in elements:
            raise ImageError("corrupt", f"the DICOM element {_tag_name(tag)} stands in the file twice; export it again")
        if tag == _PIXEL_DATA and not syntax and _has_undefined_length(data, start, encoding):
            raise ImageError(
                "unsupported",
                "a DICOM file with compressed pixels, but without the meta information that says how they are "
                "compressed (transfer syntax); export it again",
            )
        elements[tag] = data[start:end]
    return DicomElements(syntax_of_elements, encoding, b"".join(elements[tag] for tag in sorted(elements)))


def _find_encoding(data: bytes, position: int, syntax: str) -> ElementEncoding:
    """Find how the elements are written. Where the first one shows something else than the file says, it is right."""
    head = data[position : position + 8]
    first_groups = {_FIRST_GROUP.to_bytes(2, "little"): True, _FIRST_GROUP.to_bytes(2, "big"): False}
    little_endian = first_groups.get(head[:2], syntax != _BIG_ENDIAN)
    return ElementEncoding(implicit=head[4:6] not in _VALUE_TYPES, little_endian=little_endian)


def _has_undefined_length(data: bytes, position: int, encoding: ElementEncoding) -> bool:
    return _read_element_head(data, position, encoding)[2] == _UNDEFINED_LENGTH


def _read_meta_information(data: bytes, start: int) -> tuple[str, int]:
    """Return the transfer syntax ("" if there is none) and the end of the meta information.

    The meta information is always explicit and little endian.
    """
    syntax, end = "", start
    for tag, _, value_start, element_end in _walk(data, start, ElementEncoding(), group=2):
        end = element_end
        if tag == _TRANSFER_SYNTAX:
            syntax = data[value_start:element_end].rstrip(b"\0 ").decode("ascii", "replace")
    return syntax, end


def _inflate(deflated: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = decompressor.decompress(deflated, limit)
    except zlib.error:
        raise ImageError("corrupt", "the deflated content of the DICOM file is damaged; export it again") from None
    if decompressor.unconsumed_tail:
        raise ImageError(
            "too_large",
            f"expected at most {limit} bytes when inflated, the DICOM file holds more; send a smaller image",
        )
    if not decompressor.eof:
        raise _truncated(len(deflated))
    return data


def _walk(
    data: bytes, position: int, encoding: ElementEncoding, *, group: int | None = None, depth: int = 0
) -> Iterator[tuple[int, int, int, int]]:
    """Yield the tag of each element, where it starts, where its value starts, and where it ends.

    The walk stops at the end of the file, after the last element of ``group``, or, if ``depth`` is not 0, after the end
    marker of an item.
    """
    end = len(data)
    while position < end or depth:
        start = position
        if not depth and group is None and not any(data[position : position + 8]) and not any(data[position:]):
            return  # zeros that pad the file to a block of a tape, a disc or an object store
        if group is not None and data[position : position + 2] != group.to_bytes(2, "little"):
            return  # not parsed here, because the next group may have another encoding
        tag, value_type, length, value_start = _read_element_head(data, position, encoding)
        if tag == _ITEM_END and depth:
            yield tag, start, value_start, value_start
            return
        if tag >> 16 == 0xFFFE:
            raise _unexpected(start)
        if length == _UNDEFINED_LENGTH:
            item_encoding = ElementEncoding(implicit=True) if value_type == b"UN" else encoding
            if value_type not in (b"SQ", b"UN", b"OB", b"OW", b""):
                raise _unexpected(start)
            position = _sequence_end(data, value_start, item_encoding, depth, nested=tag != _PIXEL_DATA)
        else:
            position = value_start + length
        if position > end:
            raise _truncated(end)
        yield tag, start, value_start, position


def _read_element_head(data: bytes, position: int, encoding: ElementEncoding) -> tuple[int, bytes, int, int]:
    """Return tag, type (empty if not written), length of the value, and where the value starts."""
    order = "<" if encoding.little_endian else ">"
    try:
        group, number = struct.unpack_from(f"{order}HH", data, position)
        tag = group << 16 | number
        if encoding.implicit or group == 0xFFFE:
            return tag, b"", struct.unpack_from(f"{order}I", data, position + 4)[0], position + 8
        value_type = data[position + 4 : position + 6]
        if not (value_type.isalpha() and value_type.isupper()):
            # Some senders write single elements without a type, as pydicom's reader also accepts.
            return tag, b"", struct.unpack_from(f"{order}I", data, position + 4)[0], position + 8
        if value_type in _LONG_TYPES:
            return tag, value_type, struct.unpack_from(f"{order}I", data, position + 8)[0], position + 12
        return tag, value_type, struct.unpack_from(f"{order}H", data, position + 6)[0], position + 8
    except struct.error:
        raise _truncated(len(data)) from None


def _sequence_end(data: bytes, position: int, encoding: ElementEncoding, depth: int, *, nested: bool) -> int:
    """Return where a sequence of undefined length ends; items of pixel data are not nested."""
    if depth >= _MAX_DEPTH:
        raise ImageError("corrupt", f"DICOM sequences are nested more than {_MAX_DEPTH} deep; export it again")
    while True:
        start = position
        tag, _, length, position = _read_element_head(data, position, encoding)
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM or (length == _UNDEFINED_LENGTH and not nested):
            raise _unexpected(start)
        if length == _UNDEFINED_LENGTH:
            position = max(end for *_, end in _walk(data, position, encoding, depth=depth + 1))
        else:
            position += length
        if position > len(data):
            raise _truncated(len(data))


def _tag_name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _unexpected(position: int) -> ImageError:
    return ImageError("corrupt", f"expected a DICOM element at byte {position}; get the file again")


def _truncated(size: int) -> ImageError:
    return ImageError("truncated", f"the DICOM elements end after {size} bytes, inside one of them; get the file again")

"""Tells by its name, or else by its first bytes, whether a file holds an image that can be read."""

from __future__ import annotations

from pathlib import PurePath

from cxr.images.dicom.reader import is_dicom

FORMAT_SUFFIXES: dict[str, frozenset[str]] = {
    "JPEG": frozenset({".jpeg", ".jpg", ".jpe", ".jfif"}),
    "PNG": frozenset({".png"}),
    "DICOM": frozenset({".dcm", ".dicom", ".dic", ".ima"}),
    "other": frozenset({".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"}),
}
"""Endings of names by format, in lower case. The formats of ``other`` are known, but not read."""

IMAGE_SUFFIXES: frozenset[str] = frozenset().union(*FORMAT_SUFFIXES.values())
"""Files with these endings count as images; reading them shows whether they are."""

HEAD_BYTES = 512
"""Bytes from the start of a file that tell its format. The first 128 bytes of DICOM may be anything."""

_JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_DISC_INDEX = b"1.2.840.10008.1.3.10"
"""UID of the class of a DICOMDIR, which lists the files of a disc and holds no image itself (PS3.10)."""


def is_named_as_image(path: PurePath) -> bool:
    """Tell whether the ending of a file's name is that of an image.

    Args:
        path: path or name of the file.

    Returns:
        False also for names without an ending, which DICOM files often have.
    """
    return path.suffix.lower() in IMAGE_SUFFIXES


def names_another_format(path: PurePath, image_format: str) -> bool:
    """Tell whether the ending of a file's name contradicts its content.

    Args:
        path: path or name of the file.
        image_format: format of the content: ``"JPEG"``, ``"PNG"`` or ``"DICOM"``.

    Returns:
        False for unknown endings and for none.
    """
    return is_named_as_image(path) and path.suffix.lower() not in FORMAT_SUFFIXES[image_format]


def starts_as_image(head: bytes) -> bool:
    """Tell by the first bytes whether a file is one of the formats that are read.

    Args:
        head: the first :data:`HEAD_BYTES` bytes of the file, or all if it has fewer.

    Returns:
        Whether it is JPEG, PNG or DICOM.
    """
    return head.startswith(_JPEG_OR_PNG) or is_dicom(head)


def starts_as_disc_index(head: bytes) -> bool:
    """Tell by the first bytes whether a file is a DICOMDIR, the index of a disc.

    Args:
        head: the first :data:`HEAD_BYTES` bytes of the file, or all if it has fewer.

    Returns:
        Whether it is one; :func:`starts_as_image` is true for it, too.
    """
    return is_dicom(head) and _DISC_INDEX in head

"""Reading one radiograph strictly: a broken or unsuitable file is named as such, never silently filled in."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.dicom.reader import is_dicom, read_dicom
from cxr.images.headers import Header, read_header
from cxr.images.perceptual_hash import perceptual_hash
from cxr.images.pixels import coloured_share, decode_pixels, is_grey

TRAINING_PROBLEMS: dict[str, str] = {
    "symlink": "a symbolic link: links are reported and never followed",
    "special": "a folder, device, pipe or socket where an image file should be",
    "unreadable": "the file cannot be read (permission, or gone)",
    "empty": "the file has no bytes",
    "too_large": "too many bytes or pixels; decided before a pixel is decoded",
    "not_an_image": "the content is not a JPEG or PNG picture",
    "truncated": "the file ends before its end mark",
    "corrupt": "the content is damaged",
    "animated": "the file holds more than one picture",
    "cmyk": "four ink channels: a print file, not a radiograph",
    "misplaced": "the file lies in no class folder",
    "misnamed": "the name does not say which patient it is",
    "mislabelled": "the name says another label than the folder",
    "depth_16": "more than 8 bits per channel",
    "blank": "all pixels have one grey level",
    "too_small": "fewer pixels per side than the limit",
    "aspect": "longer and narrower than the limit",
    "wrong_suffix": "the ending of the name is of another format than the content",
    "colour": "coloured pixels; colour is dropped, every image is read as grey",
}
"""Kinds of problem that a file of training data can have, worst first, each with a sentence for people."""

PROBLEMS: dict[str, str] = TRAINING_PROBLEMS | {
    "modality": "made by a device that takes no radiographs (CT, MR, ultrasound, ...)",
    "no_pixels": "a DICOM file without a picture: a report, a plan, a curve",
    "photometric": "a DICOM file in colour; radiographs are stored in grey",
    "raw": "the values of a detector before they are made a picture to look at",
    "not_frontal": "a side or oblique view; the model knows frontal ones (PA, AP)",
    "unsupported": "a way of storing pixels that is not read here; export the picture uncompressed",
    "too_slow": "reading it took longer than the limit",
}
"""All kinds of problem, those of files that are answered for included, each with a sentence for people."""

SOFT: frozenset[str] = frozenset({"depth_16", "blank", "too_small", "aspect", "wrong_suffix", "colour"})
"""Problems of images that can still be decoded, so that a policy may accept them."""

MAX_PIXELS = 50_000_000
COLOUR_TOLERANCE = 8
_FORMAT_SUFFIXES = {"JPEG": (".jpeg", ".jpg"), "PNG": (".png",)}


@dataclass(frozen=True)
class Limits:
    """Bounds on what is taken as a radiograph.

    Attributes:
        max_pixels: largest number of pixels, read from the header before decoding.
        max_bytes: largest file; larger ones are hashed and not loaded.
        min_side: smallest width and height in pixels.
        max_aspect: largest ratio of the longer to the shorter side.
        colour_tolerance: difference of a pixel's channels, in grey levels, above which it is coloured.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int = 200_000_000
    min_side: int = 64
    max_aspect: float = 4.0
    colour_tolerance: int = COLOUR_TOLERANCE


@dataclass(frozen=True)
class ImageFacts:
    """What was found out about one image file.

    Attributes:
        sha256: hexadecimal digest of the content, ``""`` if it was not read.
        bytes: size of the file; -1 if unknown.
        width: pixels per row as shown (after EXIF orientation); as stored where not decoded, 0 if unknown.
        height: rows, likewise.
        mode: channels in Pillow's words (``"L"``, ``"RGB"``, ``"CMYK"``, ``"I;16"``, ...), ``""`` if unknown.
        bit_depth: bits per channel, 0 if unknown.
        grey: whether no pixel is coloured; None if unknown.
        readable: whether the pixels were decoded.
        problems: kinds of problem (keys of :data:`TRAINING_PROBLEMS`) with their descriptions, worst first.
        mean: mean grey level, 0 to 255, NaN if unknown.
        std: standard deviation of the grey levels, NaN if unknown.
        phash: perceptual hash, 16 hexadecimal digits, ``""`` if unknown or blank.
    """

    sha256: str = ""
    bytes: int = -1
    width: int = 0
    height: int = 0
    mode: str = ""
    bit_depth: int = 0
    grey: bool | None = None
    readable: bool = False
    problems: tuple[tuple[str, str], ...] = ()
    mean: float = float("nan")
    std: float = float("nan")
    phash: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture as it came, before any recipe.

    Attributes:
        grey: uint8 ``(height, width)``, 0 to 255, as :func:`decode_grey` gives it.
        coloured: share of its pixels that are coloured, 0 to 1.
    """

    grey: NDArray[np.uint8]
    coloured: float = 0.0


def read_bytes(path: Path, *, max_bytes: int | None = None) -> bytes:
    """Read a regular file, following no link and waiting on no pipe.

    Args:
        path: the file.
        max_bytes: largest size that is loaded; None for no limit.

    Returns:
        Its content.

    Raises:
        ImageError: ``symlink``, ``special``, ``unreadable`` or ``too_large``.
    """
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise ImageError("symlink", f"a link to {path.readlink()}; put the file itself there")
        if not stat.S_ISREG(mode):
            raise ImageError("special", "expected a regular file; remove it")
        # The link is refused again at the opening: the file may have been swapped meanwhile.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise ImageError("too_large", f"expected at most {max_bytes} bytes, received bytes={size}")
            return file.read()
    except OSError as error:
        raise ImageError("unreadable", f"{error.strerror}; check the file and its permissions") from error


def decode_grey(data: bytes, *, max_pixels: int = MAX_PIXELS, scale_16_bit: bool = False) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or DICOM file to grey, refusing everything that a decoder would have to guess.

    DICOM is shown as :func:`cxr.images.dicom.reader.read_dicom` says. Of the others colour becomes luma
    (``cv2.IMREAD_GRAYSCALE``), transparency is dropped, and EXIF orientation is applied, so that the array is what a
    viewer shows. In a progressive JPEG only a missing end is found; in any other also damage inside the coded pixels,
    unless the damaged bytes happen to decode to as many pixels.

    Args:
        data: the whole content of the file.
        max_pixels: largest number of pixels, read from the header before decoding.
        scale_16_bit: take PNG images of more than 8 bits, stretching their own range from smallest to largest
            value linearly to 0 to 255; by default they are refused, as their grey levels mean something else.

    Returns:
        uint8 ``(height, width)``, 0 to 255.

    Raises:
        ImageError: ``empty``, ``not_an_image``, ``truncated``, ``corrupt``, ``animated``, ``cmyk``,
            ``too_large`` or ``depth_16``; of DICOM also those of :func:`cxr.images.dicom.reader.read_dicom`.
    """
    if is_dicom(data):
        return read_dicom(data, max_pixels=max_pixels)
    header = read_header(data)
    _refuse(header, max_pixels)
    if header.bit_depth > 8 and not scale_16_bit:
        raise ImageError("depth_16", _depth(header))
    return decode_pixels(data, header)


def decode_picture(data: bytes, *, max_pixels: int = MAX_PIXELS, colour_tolerance: int = COLOUR_TOLERANCE) -> Picture:
    """Decode a file as :func:`decode_grey` does, and find out how much colour was dropped.

    Args:
        data: the whole content of the file.
        max_pixels: largest number of pixels, read from the header before decoding.
        colour_tolerance: difference of a pixel's channels, in grey levels, above which it is coloured.

    Returns:
        The picture.

    Raises:
        ImageError: as :func:`decode_grey`.
    """
    grey = decode_grey(data, max_pixels=max_pixels)
    if is_dicom(data):
        return Picture(grey)
    return Picture(grey, coloured_share(data, read_header(data), colour_tolerance, coarse=True))


def inspect(path: Path, limits: Limits | None = None) -> ImageFacts:
    """Find out all about one image file; a bad image is described, never raised.

    Args:
        path: the file.
        limits: bounds on what is taken as a radiograph; None for the defaults.

    Returns:
        The facts, with all problems found.
    """
    limits = limits or Limits()
    facts = ImageFacts()
    try:
        data = read_bytes(path, max_bytes=limits.max_bytes)
        facts = replace(facts, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        header = read_header(data)
        facts = replace(facts, width=header.width, height=header.height, mode=header.mode, bit_depth=header.bit_depth)
        _refuse(header, limits.max_pixels)
        grey = decode_pixels(data, header)
        facts = replace(facts, grey=is_grey(data, header, limits.colour_tolerance))
        return _judge(path, facts, header, grey, limits)
    except ImageError as error:
        if error.problem == "too_large" and not facts.sha256:
            facts = _hash_only(path)
        return replace(facts, problems=((error.problem, error.detail),))


def _hash_only(path: Path) -> ImageFacts:
    """Size and digest of a file that is too large to load."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return ImageFacts(bytes=file.tell(), sha256=digest)
    except OSError:
        return ImageFacts()


def _judge(path: Path, facts: ImageFacts, header: Header, grey: NDArray[np.uint8], limits: Limits) -> ImageFacts:
    """Complete the facts of a decoded image and collect its soft problems."""
    height, width = grey.shape
    mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(grey))
    aspect = max(height, width) / min(height, width)
    size = f"size={width}x{height}"
    found: dict[str, str] = {}
    if header.bit_depth > 8:
        found["depth_16"] = _depth(header)
    if std == 0:
        found["blank"] = f"all pixels have the grey level {mean:.0f}"
    if min(height, width) < limits.min_side:
        found["too_small"] = f"expected sides of at least {limits.min_side} pixels, received {size}"
    if aspect > limits.max_aspect:
        found["aspect"] = f"expected an aspect of at most {limits.max_aspect:g}, received {size}"
    if path.suffix.lower() not in _FORMAT_SUFFIXES[header.format]:
        found["wrong_suffix"] = f"the content is {header.format}, received suffix={path.suffix!r}"
    if not facts.grey:
        found["colour"] = f"channels differ by more than {limits.colour_tolerance} grey levels"
    return replace(
        facts,
        width=width,
        height=height,
        readable=True,
        problems=tuple((problem, found[problem]) for problem in TRAINING_PROBLEMS if problem in found),
        mean=mean,
        std=std,
        phash=perceptual_hash(grey) if std > 0 else "",
    )


def _depth(header: Header) -> str:
    return f"expected 8 bits per channel, received bit_depth={header.bit_depth}; convert it or accept depth_16"


def _refuse(header: Header, max_pixels: int) -> None:
    if header.width * header.height > max_pixels:
        size = f"{header.width}x{header.height}"
        raise ImageError("too_large", f"expected at most {max_pixels} pixels, received size={size}")
    if header.animated:
        raise ImageError("animated", "the file holds more than one picture; export one of them")
    if header.mode == "CMYK":
        raise ImageError("cmyk", "expected grey or RGB, received mode=CMYK; export it as grey")

"""Decodes one radiograph strictly: a damaged or unsuitable file is refused with the kind of its problem."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.dicom.reader import has_compressed_pixels, is_dicom, read_dicom_header
from cxr.images.file_types import names_another_format
from cxr.images.headers import ImageHeader, read_header
from cxr.images.perceptual_hash import perceptual_hash
from cxr.images.pixels import decode_and_find_colour
from cxr.images.problems import TRAINING_PROBLEMS
from cxr.images.raw_images import RawImages
from cxr.images.reading_options import STRICT, ReadingOptions
from cxr.images.result_cache import NO_CACHE, KeptResults, ResultCache
from cxr.images.shared_sandbox import decode_in_sandbox
from cxr.images.sharpness import measure_gradient_ratio, measure_sharpness
from cxr.images.strict_decoding import (
    DecodedImage,
    decode_header_and_grey,
    decode_in_process,
    refuse_header,
    unusual_header,
)

MAX_BYTES = 200_000_000
"""Largest image file, where no step parameter sets another limit."""


@dataclass(frozen=True)
class ImageLimits:
    """Limits that an image file must keep to be accepted as a radiograph.

    Attributes:
        options: what is accepted when it is read.
        max_bytes: largest file; larger ones are hashed but not loaded.
        min_side: smallest width and height in pixels.
        max_aspect: largest ratio of the longer to the shorter side.
        colour_tolerance: difference of a pixel's channels, in grey levels, above which it counts as coloured.
    """

    options: ReadingOptions
    max_bytes: int
    min_side: int
    max_aspect: float
    colour_tolerance: int


@dataclass(frozen=True)
class ImageFacts:
    """The facts of one image file.

    Attributes:
        sha256: hexadecimal digest of the content, ``""`` if it was not read.
        bytes: size of the file; -1 if unknown.
        width: pixels per row as shown (after EXIF orientation), or as stored if not decoded; 0 if unknown.
        height: rows, likewise.
        mode: channels as Pillow names them (``"L"``, ``"RGB"``, ``"CMYK"``, ``"I;16"``, ...), ``""`` if unknown.
        bit_depth: bits per channel, 0 if unknown.
        grey: whether no pixel is coloured; None if unknown.
        readable: whether the pixels were decoded.
        problems: kinds of problem (keys of :data:`TRAINING_PROBLEMS`) with their descriptions, worst first.
        mean: mean grey level, 0 to 255, NaN if unknown.
        std: standard deviation of the grey levels, NaN if unknown.
        phash: perceptual hash, 16 hexadecimal digits, ``""`` if unknown or if all pixels are equal.
        sharpness: variance of the Laplacian of the grey levels, at least 0, NaN if unknown.
        gradient_ratio: mean difference of horizontal neighbours, divided by that of vertical ones; NaN if unknown or if
            no vertical neighbours differ.
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
    sharpness: float = float("nan")
    gradient_ratio: float = float("nan")


def read_bytes(path: Path, *, max_bytes: int | None = None) -> bytes:
    """Read a regular file; links are not followed, and pipes are not waited for.

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
        # Opening refuses a link again, because the file may have been exchanged in the meantime.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise ImageError(
                    "too_large", f"expected at most {max_bytes} bytes, received bytes={size}; send a smaller image"
                )
            return file.read()
    except OSError as error:
        raise ImageError("unreadable", f"{error.strerror}; check the file and its permissions") from error


def decode_grey(data: bytes, options: ReadingOptions = STRICT) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or DICOM file to grey, and refuse every file for which a decoder would have to guess.

    DICOM is shown as :func:`cxr.images.dicom.reader.read_dicom` describes. In JPEG and PNG, colour becomes luma
    (``cv2.IMREAD_GRAYSCALE``), transparency is dropped, and EXIF orientation is applied, so the array is what a viewer
    shows. Damage inside the coded pixels of a JPEG is found, unless the damaged bytes happen to decode to the same
    number of pixels.

    Args:
        data: the whole content of the file.
        options: what is accepted.

    Returns:
        uint8 ``(height, width)``, 0 to 255.

    Raises:
        ImageError: ``empty``, ``not_an_image``, ``truncated``, ``corrupt``, ``animated``, ``cmyk``, ``too_large`` or
            ``depth_16``; for DICOM the problems that :func:`cxr.images.dicom.reader.read_dicom` lists.
    """
    if has_compressed_pixels(data):
        return decode_in_sandbox(data, options).grey
    return decode_header_and_grey(data, options)[1]


def decode_image(data: bytes, options: ReadingOptions = STRICT) -> DecodedImage:
    """Decode a file as :func:`decode_grey` does, measure how much colour was dropped, and say what is unusual.

    Compressed pixels of DICOM are decoded in a process of their own, because damage in them can end the process: the
    file is then ``corrupt``, and the next one is decoded.

    Args:
        data: the whole content of the file.
        options: what is accepted.

    Returns:
        The decoded image.

    Raises:
        ImageError: as :func:`decode_grey`; also ``too_slow``.
    """
    if has_compressed_pixels(data):
        return decode_in_sandbox(data, options)
    return decode_in_process(data, options)


def kept_facts(limits: ImageLimits, cache: ResultCache) -> KeptResults[ImageFacts]:
    """Open the facts that earlier runs of :func:`inspect_image` kept.

    Args:
        limits: limits that an image must keep.
        cache: where facts are kept.

    Returns:
        The facts.
    """
    key = json.dumps([limits.options.to_text(), *astuple(replace(limits, options=STRICT))[1:]])
    return cache.results(__name__, "facts", key=key, to_bytes=_facts_to_bytes, from_bytes=_facts_from_bytes)


def inspect_image(
    images: RawImages, name: str, limits: ImageLimits, known: KeptResults[ImageFacts] | None = None
) -> ImageFacts:
    """Collect the facts of one image file. A bad image is described and raises no error.

    Args:
        images: the raw images.
        name: name of one of them.
        limits: limits that the image must keep.
        known: facts of earlier runs with these limits.

    Returns:
        The facts, with all problems found.

    Raises:
        SourceError: if the place of the images fails.
    """
    known = known or kept_facts(limits, NO_CACHE)
    path = PurePosixPath(name)
    try:
        digest, facts = known.compute(
            images, name, partial(_inspect_content, path, limits), max_bytes=limits.max_bytes, variant=path.suffix
        )
        return replace(facts, sha256=digest)
    except ImageError as error:
        size, digest = images.size_and_sha256(name) if error.problem == "too_large" else (-1, "")
        return ImageFacts(bytes=size, sha256=digest, problems=((error.problem, error.detail),))


def _inspect_content(path: PurePosixPath, limits: ImageLimits, data: bytes) -> ImageFacts:
    """Collect the facts of a file but its digest. Only the ending of its name matters besides its content."""
    facts = ImageFacts(bytes=len(data))
    try:
        header = read_dicom_header(data, limits.options) if is_dicom(data) else read_header(data)
        facts = replace(facts, width=header.width, height=header.height, mode=header.mode, bit_depth=header.bit_depth)
        refuse_header(header, limits.options.max_pixels)
        if header.format == "DICOM":
            grey, has_colour = decode_image(data, limits.options).grey, False
        else:
            grey, has_colour = decode_and_find_colour(data, header, limits.colour_tolerance)
        facts = replace(facts, grey=not has_colour)
        return _add_pixel_facts(facts, path, header, grey, limits)
    except ImageError as error:
        return replace(facts, problems=((error.problem, error.detail),))


def _facts_to_bytes(facts: ImageFacts) -> bytes | None:
    """Facts of an image as JSON; None if it is not readable, since its decoder may have run out of time or memory."""
    return json.dumps(astuple(facts)).encode() if facts.readable else None


def _facts_from_bytes(content: bytes) -> ImageFacts:
    facts = ImageFacts(*json.loads(content))
    return replace(facts, problems=tuple((problem, detail) for problem, detail in facts.problems))


def _add_pixel_facts(
    facts: ImageFacts, path: PurePosixPath, header: ImageHeader, grey: NDArray[np.uint8], limits: ImageLimits
) -> ImageFacts:
    """Complete the facts of a decoded image and collect its soft problems."""
    height, width = grey.shape
    mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(grey))
    is_blank = bool(grey.min() == grey.max())  # the deviation of equal pixels is not always rounded to 0
    aspect = max(height, width) / min(height, width)
    size = f"size={width}x{height}"
    problems = unusual_header(header)
    if is_blank:
        problems["blank"] = f"all pixels have the grey level {mean:.0f}"
    if min(height, width) < limits.min_side:
        problems["too_small"] = f"expected sides of at least {limits.min_side} pixels, received {size}"
    if aspect > limits.max_aspect:
        problems["aspect"] = f"expected an aspect of at most {limits.max_aspect:g}, received {size}"
    if names_another_format(path, header.format):
        problems["wrong_suffix"] = f"the content is {header.format}, received suffix={path.suffix!r}"
    if not facts.grey:
        problems["colour"] = f"channels differ by more than {limits.colour_tolerance} grey levels"
    return replace(
        facts,
        width=width,
        height=height,
        readable=True,
        problems=tuple((problem, problems[problem]) for problem in TRAINING_PROBLEMS if problem in problems),
        mean=mean,
        std=0.0 if is_blank else std,
        phash="" if is_blank else perceptual_hash(grey),
        sharpness=measure_sharpness(grey),
        gradient_ratio=measure_gradient_ratio(grey),
    )

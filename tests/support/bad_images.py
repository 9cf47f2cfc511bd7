"""Functions that write every kind of bad image that a data folder can contain, each to a path."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxr.data.image_folder import ImageFolder
from cxr.errors import ImageError
from cxr.images.decoding import ImageFacts, ImageLimits, decode_grey, inspect_image
from cxr.images.reading_options import STRICT, ReadingOptions
from support.dicom_files import dicom_file

IMAGE_LIMITS = ImageLimits(options=STRICT, max_bytes=200_000_000, min_side=64, max_aspect=4.0, colour_tolerance=8)


def draw_image(seed: int = 0, height: int = 160, width: int = 200) -> NDArray[np.uint8]:
    """Draw a smooth random image with structure at several scales, different for each seed.

    Args:
        seed: seed of the random generator.
        height: rows.
        width: pixels per row.

    Returns:
        uint8 ``(height, width)``, 0 to 255.
    """
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width), dtype=np.float32)
    for side in (4, 12, 40):
        waves = generator.normal(size=(side, side)).astype(np.float32)
        image += cv2.resize(waves, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def error_of(content: bytes, options: ReadingOptions = STRICT) -> ImageError:
    """Decode a file that must be refused, and return the error."""
    with pytest.raises(ImageError) as caught:
        decode_grey(content, options)
    return caught.value


def inspect_file(path: Path, limits: ImageLimits = IMAGE_LIMITS) -> ImageFacts:
    """Collect the facts of one file, as for a data folder that holds it alone."""
    return inspect_image(ImageFolder(path.parent), path.name, limits)


def jpeg(image: NDArray[np.uint8], *options: int) -> bytes:
    """Encode as baseline JPEG, quality 90.

    Args:
        image: uint8 ``(height, width)`` or ``(height, width, 3)`` in BGR.
        options: further options of ``cv2.imencode``.

    Returns:
        The file's content.
    """
    return bytes(cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1])


def png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Encode as PNG.

    Args:
        image: uint8 or uint16, ``(height, width)`` or with channels in BGR.

    Returns:
        The file's content.
    """
    return bytes(cv2.imencode(".png", image)[1])


def png_chunk(chunk_type: bytes, body: bytes) -> bytes:
    """Write a PNG chunk: length, type, body and checksum."""
    return struct.pack(">I", len(body)) + chunk_type + body + struct.pack(">I", zlib.crc32(chunk_type + body))


def sound(path: Path, seed: int = 0) -> None:
    """A sound grey JPEG."""
    path.write_bytes(jpeg(draw_image(seed)))


def empty(path: Path) -> None:
    """A file without bytes."""
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    """The first half of a JPEG."""
    content = jpeg(draw_image())
    path.write_bytes(content[: len(content) // 2])


def truncated_png(path: Path) -> None:
    """The first half of a PNG."""
    content = png(draw_image())
    path.write_bytes(content[: len(content) // 2])


def closed_half(path: Path) -> None:
    """Half of a JPEG with an end mark appended, as repair programs do; decoders fill the missing part with grey."""
    content = jpeg(draw_image())
    path.write_bytes(content[: len(content) // 2] + b"\xff\xd9")


def overwritten(path: Path) -> None:
    """A JPEG whose middle hundred bytes are overwritten with noise."""
    content = bytearray(jpeg(draw_image()))
    middle = len(content) // 2
    # The noise contains no 0xFF, so that nothing in it looks like a marker.
    content[middle : middle + 100] = np.random.default_rng(1).integers(0, 255, 100, dtype=np.uint8).tobytes()
    path.write_bytes(bytes(content))


def flipped_png(path: Path) -> None:
    """A PNG with one changed bit in its pixels."""
    content = bytearray(png(draw_image()))
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def text(path: Path) -> None:
    """A text file with the name of an image."""
    path.write_text("Patient was moved to ward 3.\n", encoding="utf-8")


def static_gif(path: Path) -> None:
    """A GIF with one image."""
    Image.fromarray(draw_image()).save(path, format="GIF")


def animated_gif(path: Path) -> None:
    """A GIF with three images."""
    frames = [Image.fromarray(draw_image(seed)) for seed in range(3)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=100)


def animated_png(path: Path) -> None:
    """A PNG with three images."""
    frames = [Image.fromarray(draw_image(seed)) for seed in range(3)]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:], duration=100)


def cmyk(path: Path) -> None:
    """A JPEG with four ink channels."""
    Image.fromarray(draw_image()).convert("CMYK").save(path, format="JPEG")


def depth_16(path: Path) -> None:
    """A PNG of 12-bit grey levels in 16 bits, as X-ray machines write."""
    path.write_bytes(png(draw_image().astype(np.uint16) * 16))


def bomb(path: Path) -> None:
    """A PNG of 50,000 x 50,000 pixels in about a hundred bytes, which would need 2.5 GB to decode."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(50_001))), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(chunk_type, body) for chunk_type, body in chunks))


def jpeg_bomb(path: Path) -> None:
    """A JPEG whose header states 60,000 x 60,000 pixels."""
    content = jpeg(draw_image())
    frame = content.index(b"\xff\xc0") + 5
    path.write_bytes(content[:frame] + struct.pack(">HH", 60_000, 60_000) + content[frame + 4 :])


def too_small(path: Path) -> None:
    """A JPEG of 20 x 20 pixels."""
    path.write_bytes(jpeg(draw_image(height=20, width=20)))


def strip(path: Path) -> None:
    """A JPEG eight times as wide as high."""
    path.write_bytes(jpeg(draw_image(height=80, width=640)))


def blank(path: Path) -> None:
    """A JPEG of one grey level."""
    path.write_bytes(jpeg(np.full((120, 120), 90, dtype=np.uint8)))


def colour(path: Path) -> None:
    """A JPEG with coloured pixels."""
    path.write_bytes(jpeg(np.dstack([draw_image(0), draw_image(1), draw_image(2)])))


def png_with_wrong_suffix(path: Path) -> None:
    """A sound PNG, whatever the suffix of the path is."""
    path.write_bytes(png(draw_image()))


def symlink(path: Path) -> None:
    """A link to a hidden, sound image in the same folder."""
    target = path.with_name(f".{path.name}.target")
    sound(target)
    path.symlink_to(target)


def dangling_symlink(path: Path) -> None:
    """A link to a file that does not exist."""
    path.symlink_to(path.with_name("nowhere.jpeg"))


def pipe(path: Path) -> None:
    """A named pipe; reading it would never end."""
    os.mkfifo(path)


def dicom(path: Path, **tags: str | None) -> None:
    """A DICOM file with some elements that no frontal radiograph has; None leaves an element out."""
    path.write_bytes(dicom_file(draw_image(50), **tags))


def dicom_in_unknown_syntax(path: Path) -> None:
    """A DICOM file whose pixels are coded in a way that no standard knows."""
    path.write_bytes(dicom_file(draw_image(51)).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.1\0"))


BAD: dict[str, tuple[str, Callable[[Path], None]]] = {
    "empty": ("empty", empty),
    "truncated": ("truncated", truncated),
    "truncated_png": ("truncated", truncated_png),
    "closed_half": ("corrupt", closed_half),
    "overwritten": ("corrupt", overwritten),
    "flipped_png": ("corrupt", flipped_png),
    "text": ("not_an_image", text),
    "static_gif": ("not_an_image", static_gif),
    "animated_gif": ("animated", animated_gif),
    "animated_png": ("animated", animated_png),
    "cmyk": ("cmyk", cmyk),
    "dicom_of_a_scanner": ("modality", partial(dicom, Modality="CT")),
    "dicom_without_pixels": ("no_pixels", partial(dicom, PixelData=None)),
    "dicom_in_colour": ("photometric", partial(dicom, PhotometricInterpretation="RGB")),
    "dicom_of_a_detector": ("raw", partial(dicom, PresentationIntentType="FOR PROCESSING")),
    "dicom_from_the_side": ("not_frontal", partial(dicom, ViewPosition="LL")),
    "dicom_in_unknown_syntax": ("unsupported", dicom_in_unknown_syntax),
    "depth_16": ("depth_16", depth_16),
    "bomb": ("too_large", bomb),
    "jpeg_bomb": ("too_large", jpeg_bomb),
    "too_small": ("too_small", too_small),
    "strip": ("aspect", strip),
    "blank": ("blank", blank),
    "colour": ("colour", colour),
    "png_with_wrong_suffix": ("wrong_suffix", png_with_wrong_suffix),
    "symlink": ("symlink", symlink),
    "dangling_symlink": ("symlink", dangling_symlink),
    "pipe": ("special", pipe),
}
"""Kind of bad file: the problem that must be reported, and the function that writes the file."""


def write_bad_images(folder: Path) -> dict[str, str]:
    """Write one file of every kind of :data:`BAD`, with sound pneumonia names.

    Args:
        folder: an existing folder, for example ``train/PNEUMONIA``.

    Returns:
        The problem that must be reported, by file name.
    """
    expected: dict[str, str] = {}
    for number, (problem, write) in enumerate(BAD.values(), start=9000):
        name = f"person{number}_bacteria_1.jpeg"
        if problem == "depth_16":
            name = name.replace(".jpeg", ".png")
        write(folder / name)
        expected[name] = problem
    return expected

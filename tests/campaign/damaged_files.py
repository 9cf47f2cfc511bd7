"""Damages files of every format, and reads each in both readers: the plain one and the sandbox.

It runs in a process of its own, because a reader that ends its process is one of the faults that it looks for:
``python -m campaign.damaged_files SEED FIRST LAST`` prints one line of JSON per file.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from campaign.outcomes import Attempt
from cxr.errors import ImageError
from cxr.images.decoding import decode_image
from cxr.images.reading_options import ReadingOptions
from cxr.images.sandbox import SandboxedDecoder
from support import bad_images
from support.dicom_files import (
    compress_with_gdcm,
    compressed_dicom,
    dicom_dataset,
    dicom_file,
    draw_12_bits,
    write_dicom,
)

OPTIONS = ReadingOptions(5_000_000, scale_16_bit=True, other_modalities=None)
SECONDS = 10.0
"""A file that takes longer is a fault."""
WINDOW: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 2000}


def draw_files(folder: Path) -> dict[str, bytes]:
    """Draw one sound file of each format.

    Args:
        folder: where temporary files are written.

    Returns:
        Name of the format to content.
    """
    import gdcm

    image, deep = bad_images.draw_image(), draw_12_bits(96, 128)
    deep = (deep ^ np.random.default_rng(0).integers(0, 8, deep.shape, dtype=np.uint16)).astype(np.uint16)
    plain = dicom_file(deep, **WINDOW)
    files = {
        "JPEG": bad_images.jpeg(image),
        "JPEG, progressive": bad_images.jpeg(image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "JPEG, restart marks": bad_images.jpeg(image, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
        "JPEG, colour": bad_images.jpeg(np.dstack([image, 255 - image, image // 2])),
        "PNG, 8 bits": bad_images.png(image),
        "PNG, 16 bits": bad_images.png(deep),
        "DICOM": plain,
        "DICOM without header": plain[plain.index(b"\x08\x00\x16\x00UI") :],
        "DICOM, implicit": write_dicom(dicom_dataset(deep, **WINDOW), ImplicitVRLittleEndian),
        "DICOM, big-endian": write_dicom(dicom_dataset(deep.byteswap(), **WINDOW), ExplicitVRBigEndian),
        "DICOM, deflated": write_dicom(dicom_dataset(deep, **WINDOW), DeflatedExplicitVRLittleEndian),
        "DICOM, JPEG": compressed_dicom(image, bad_images.jpeg(image), JPEGBaseline8Bit),
    }
    run_lengths = pydicom.dcmread(BytesIO(plain))
    run_lengths.compress(RLELossless)
    files["DICOM, RLE"] = write_dicom(run_lengths)
    for name, kind in (
        ("JPEG-LS", gdcm.TransferSyntax.JPEGLSLossless),
        ("lossless JPEG", gdcm.TransferSyntax.JPEGLosslessProcess14_1),
        ("JPEG 2000", gdcm.TransferSyntax.JPEG2000Lossless),
    ):
        coded, syntax = compress_with_gdcm(plain, kind, folder)
        files[f"DICOM, {name}"] = compressed_dicom(deep, coded, syntax, **WINDOW)
    return files


def damage(content: bytes, generator: np.random.Generator) -> bytes:
    """Damage a file as disks, transfers and programs do.

    Args:
        content: the sound file.
        generator: decides how and where.

    Returns:
        The damaged file.
    """
    data = bytearray(content)
    size = len(data)
    position = int(generator.integers(size))
    match int(generator.integers(9)):
        case 0:
            del data[position:]
        case 1:
            data[position] ^= 1 << int(generator.integers(8))
        case 2:
            length = int(generator.integers(1, 513))
            data[position : position + length] = bytes(min(length, size - position))
        case 3:
            data[position:position] = generator.bytes(int(generator.integers(1, 9)))
        case 4:
            del data[position : position + int(generator.integers(1, 9))]
        case 5:
            length, other = int(generator.integers(16, 513)), int(generator.integers(size))
            first, second = data[position : position + length], data[other : other + length]
            data[position : position + len(second)], data[other : other + len(first)] = second, first
        case 6:
            for place in generator.integers(min(size, 700), size=3):  # where headers are
                data[place] = int(generator.integers(256))
        case 7:
            data[position : position + 64] = generator.bytes(min(64, size - position))
        case _:
            data += data[position:]
    return bytes(data)


def read_damaged(seed: int, first: int, last: int) -> Iterator[Attempt]:
    """Read damaged files with both readers.

    Args:
        seed: seed of the campaign.
        first: number of the first file.
        last: number behind the last file.

    Yields:
        One attempt per file: refused, the same pixels, or other pixels.
    """
    with tempfile.TemporaryDirectory() as name:
        files = draw_files(Path(name))
    expected = {name: decode_image(content, OPTIONS).grey for name, content in files.items()}
    names = list(files)
    with SandboxedDecoder(seconds=SECONDS, max_bytes=1 << 24, options=OPTIONS) as sandbox:
        for number in range(first, last):
            generator = np.random.default_rng([seed, number])
            name = names[number % len(names)]
            content = damage(files[name], generator)
            started = time.monotonic()
            answers, fault = [], ""
            for reader in (lambda data: decode_image(data, OPTIONS), sandbox.decode):
                try:
                    answers.append(reader(content).grey)
                except ImageError as error:
                    answers.append(error.problem)
                except Exception as error:
                    answers.append(type(error).__name__)
                    fault = f"{type(error).__name__}: {error}"
            outcome = "refused"
            if isinstance(answers[0], np.ndarray):
                same = np.array_equal(answers[0], expected[name])
                outcome = "same pixels" if same else "other pixels"
            if not fault and not _agree(*answers):
                fault = f"the readers differ: {[type(answer).__name__ for answer in answers]}"
            if not fault and time.monotonic() - started > SECONDS:
                fault = f"took {time.monotonic() - started:.0f} s"
            yield Attempt(f"damaged {name}", number, outcome, fault)


def _agree(first: Any, second: Any) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return isinstance(first, str) and isinstance(second, str) and first == second
    return np.array_equal(first, second)


if __name__ == "__main__":
    for entry in read_damaged(*map(int, sys.argv[1:4])):
        entry.print()

"""Damage inside compressed DICOM pixels and files made to hurt: a sentence for the file, and the next one is read."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.encaps import get_frame
from pydicom.uid import RLELossless

from cxr.errors import ImageError
from cxr.images.decoding import decode_grey, decode_image
from cxr.images.headers import read_header
from support import bad_images
from support.bad_images import error_of, inspect_file
from support.dicom_files import (
    compress_with_gdcm,
    compressed_dicom,
    dicom_dataset,
    dicom_file,
    draw_12_bits,
    write_dicom,
)
from support.sweeps import exhaustive

WINDOW = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 2000}
STORED = draw_12_bits(64, 96)
CODECS = ("JPEGLSLossless", "JPEGLosslessProcess14_1", "JPEG2000Lossless")
FATAL = {"JPEGLSLossless": (6, 255), "JPEGLosslessProcess14_1": (6, 255), "JPEG2000Lossless": (42, 255)}
"""Byte of the coded image and a value with which gdcm 3.2 ends the process: bits per pixel of an impossible number."""


def coded_image(codec: str, folder: Path) -> tuple[bytes, str]:
    import gdcm

    return compress_with_gdcm(dicom_file(STORED, **WINDOW), getattr(gdcm.TransferSyntax, codec), folder)


def fatal_file(codec: str, folder: Path) -> bytes:
    coded, syntax = coded_image(codec, folder)
    position, value = FATAL[codec]
    damaged = bytearray(coded)
    damaged[position] = value
    return compressed_dicom(STORED, bytes(damaged), syntax, **WINDOW)


@pytest.mark.parametrize("codec", [CODECS[0], *exhaustive(*CODECS[1:])])
def test_a_file_that_ends_its_decoder_is_corrupt_and_the_next_one_is_read(codec: str, tmp_path: Path) -> None:
    content = fatal_file(codec, tmp_path)
    assert error_of(content).problem == "corrupt"
    coded, syntax = coded_image(codec, tmp_path)
    np.testing.assert_array_equal(
        decode_grey(compressed_dicom(STORED, coded, syntax, **WINDOW)), decode_grey(dicom_file(STORED, **WINDOW))
    )
    (tmp_path / "x.dcm").write_bytes(content)
    assert [kind for kind, _ in inspect_file(tmp_path / "x.dcm").problems] == ["corrupt"]


def test_such_a_file_would_end_a_process_that_decodes_it_itself(tmp_path: Path) -> None:
    """If this fails, gdcm has mended it, and the sandbox may no longer be needed."""
    (tmp_path / "x.dcm").write_bytes(fatal_file("JPEGLSLossless", tmp_path))
    code = (
        "import sys; from pathlib import Path; from cxr.images.reading_options import STRICT;"
        "from cxr.images.strict_decoding import decode_in_process;"
        "decode_in_process(Path(sys.argv[1]).read_bytes(), STRICT)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.dcm")], capture_output=True)
    assert result.returncode < 0


@pytest.mark.parametrize("seed", [0, *exhaustive(*range(1, 4))])
def test_no_single_byte_of_a_coded_image_ends_this_process(seed: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    for codec in CODECS:
        coded, syntax = coded_image(codec, tmp_path)
        for _ in range(10):
            damaged = bytearray(coded)
            damaged[generator.integers(2, 80)] = generator.integers(0, 256)
            try:
                assert decode_grey(compressed_dicom(STORED, bytes(damaged), syntax, **WINDOW)).shape == STORED.shape
            except ImageError as error:
                assert error.problem in ("corrupt", "truncated", "unsupported", "too_large", "empty")


def test_lossless_jpeg_whose_decoder_warns_is_corrupt(tmp_path: Path) -> None:
    coded, syntax = coded_image("JPEGLosslessProcess14_1", tmp_path)
    ended_early = coded[:-1000] + b"\xff\xd9"
    error = error_of(compressed_dicom(STORED, ended_early, syntax, **WINDOW))
    assert error.problem == "corrupt" and "the coded pixels are damaged" in error.detail
    # What the decoder wrote about one file is not held against the next one.
    assert decode_image(compressed_dicom(STORED, coded, syntax, **WINDOW)).grey.shape == STORED.shape


def test_run_lengths_must_give_exactly_the_pixels_of_the_image() -> None:
    rough = STORED ^ np.random.default_rng(0).integers(0, 16, STORED.shape, dtype=np.uint16)
    dataset = pydicom.dcmread(BytesIO(write_dicom(dicom_dataset(rough, **WINDOW))))
    dataset.compress(RLELossless)
    coded = get_frame(dataset.PixelData, 0, number_of_frames=1)
    np.testing.assert_array_equal(
        decode_grey(compressed_dicom(rough, coded, RLELossless, **WINDOW)), decode_grey(dicom_file(rough, **WINDOW))
    )
    middle = len(coded) // 2
    swapped = coded[:middle] + coded[middle + 300 : middle + 600] + coded[middle : middle + 300] + coded[middle + 600 :]
    one_segment = b"\1" + coded[1:]
    for damaged in (swapped, one_segment, coded[:-500], coded[:60], coded[:-1] + b"\7\7"):
        assert error_of(compressed_dicom(rough, damaged, RLELossless, **WINDOW)).problem in ("corrupt", "truncated")
    assert decode_grey(compressed_dicom(rough, coded + b"\0\0", RLELossless, **WINDOW)).shape == rough.shape


def scans_of(kind: int) -> bytes:
    image = bad_images.draw_image()
    return bad_images.jpeg(image, cv2.IMWRITE_JPEG_PROGRESSIVE, kind)


@pytest.mark.parametrize("length", [100, 512])
def test_damaged_scans_of_a_progressive_jpeg_are_corrupt(length: int) -> None:
    content = scans_of(1)
    assert content.count(b"\xff\xda") > 3 and decode_grey(content).size
    middle = len(content) // 2
    assert error_of(content[:middle] + bytes(length) + content[middle + length :]).problem == "corrupt"


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    content = scans_of(1)
    last = content.rindex(b"\xff\xda")
    scan = content[last:-2]
    assert read_header(content[:last] + scan * 50 + b"\xff\xd9").format == "JPEG"
    error = error_of(content[:last] + scan * 200 + b"\xff\xd9")
    assert error.problem == "corrupt" and "100 scans" in error.detail


def tiny_parts(count: int) -> dict[str, bytes]:
    image = bad_images.draw_image()
    jpeg, png = bad_images.jpeg(image), bad_images.png(image)
    start = jpeg.index(b"\xff\xda")
    return {
        "segments": jpeg[:2] + b"\xff\xfe\x00\x02" * count + jpeg[2:],
        "chunks": png[:33] + bad_images.png_chunk(b"tEXt", b"") * count + png[33:],
        "restart marks": jpeg[:start] + jpeg[start:-2] + b"\xff\xd0" * count + b"\xff\xd9",
    }


@pytest.mark.parametrize("kind", ["segments", "chunks"])
def test_a_file_of_tiny_parts_is_refused_and_a_few_of_them_are_not(kind: str) -> None:
    assert decode_grey(tiny_parts(900)[kind]).size
    error = error_of(tiny_parts(100_000)[kind])
    assert error.problem == "corrupt" and "parts" in error.detail


@pytest.mark.parametrize("kind", ["segments", "chunks", "restart marks"])
def test_a_file_made_to_hurt_takes_little_more_than_its_size_in_memory(kind: str, tmp_path: Path) -> None:
    content = tiny_parts(2_000_000)[kind]
    (tmp_path / "x").write_bytes(content)
    code = (
        "import sys, tracemalloc; from pathlib import Path; from cxr.errors import ImageError;"
        "from cxr.images.decoding import decode_grey; data = Path(sys.argv[1]).read_bytes();"
        "tracemalloc.start()\n"
        "try:\n    decode_grey(data)\nexcept ImageError:\n    pass\n"
        "print(tracemalloc.get_traced_memory()[1] / len(data))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 3

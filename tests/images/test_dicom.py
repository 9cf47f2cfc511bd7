"""Radiographs in DICOM files are decoded as a viewer shows them, or refused without any data of the patient."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from cxr.errors import ImageError
from cxr.images.decoding import decode_grey, decode_image
from cxr.images.dicom.reader import is_dicom, read_dicom, read_dicom_header
from cxr.images.problems import PROBLEMS
from cxr.images.reading_options import STRICT
from support import bad_images
from support.bad_images import inspect_file
from support.dicom_files import (
    COMPRESSED,
    SECRET,
    compress_with_gdcm,
    compressed_dicom,
    dicom_dataset,
    dicom_file,
    draw_12_bits,
    lookup_table,
    pydicom_file,
    write_dicom,
)

WINDOW = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 2000}


def error_of(content: bytes, max_pixels: int = 1_000_000) -> ImageError:
    error = bad_images.error_of(content, replace(STRICT, max_pixels=max_pixels))
    assert error.problem in PROBLEMS
    assert SECRET.lower() not in str(error).lower()
    return error


def test_a_12_bit_window_makes_its_lower_end_black_and_its_upper_end_white() -> None:
    stored = np.array([[0, 1000, 1500], [2000, 2500, 4095]], dtype=np.uint16)
    grey = decode_grey(dicom_file(stored, **WINDOW))
    # C.11.2.1.2: ((x - 1999.5) / 1999 + 0.5) * 255
    np.testing.assert_array_equal(grey, [[0, 0, 64], [128, 191, 255]])


def test_the_first_of_several_windows_counts() -> None:
    stored = draw_12_bits()
    two_windows = dicom_file(stored, BitsStored=12, WindowCenter=[2000, 500], WindowWidth=[2000, 100])
    np.testing.assert_array_equal(decode_grey(two_windows), decode_grey(dicom_file(stored, **WINDOW)))


@pytest.mark.parametrize(
    ("function", "expected"), [("LINEAR_EXACT", [0, 64, 128, 255]), ("SIGMOID", [30, 69, 128, 250])]
)
def test_other_window_functions_follow_their_formulas(function: str, expected: list[int]) -> None:
    stored = np.array([[1000, 1500, 2000, 4000]], dtype=np.uint16)
    np.testing.assert_array_equal(decode_grey(dicom_file(stored, **WINDOW, VOILUTFunction=function))[0], expected)


def test_monochrome1_is_the_inverted_monochrome2() -> None:
    stored = draw_12_bits()
    bright = decode_grey(dicom_file(stored, **WINDOW))
    inverted = decode_grey(dicom_file(stored, **WINDOW, PhotometricInterpretation="MONOCHROME1"))
    assert np.abs(255 - inverted.astype(int) - bright).max() <= 1  # halves are rounded to even
    negative = decode_grey(
        dicom_file(
            4095 - stored, BitsStored=12, WindowCenter=4096 - 2000, WindowWidth=2000,
            PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE",
        )
    )  # fmt: skip
    assert np.abs(negative.astype(int) - bright).max() <= 1


def test_windows_apply_to_rescaled_and_signed_values() -> None:
    stored = draw_12_bits()
    expected = decode_grey(dicom_file(stored, **WINDOW))
    rescaled = dicom_file(
        stored, BitsStored=12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3000.5, WindowWidth=3999
    )
    assert np.abs(decode_grey(rescaled).astype(int) - expected).max() <= 1
    signed = dicom_file((stored.astype(np.int16) - 2048), BitsStored=12, WindowCenter=-48, WindowWidth=2000)
    np.testing.assert_array_equal(decode_grey(signed), expected)


def test_lookup_tables_for_modality_and_display_are_applied() -> None:
    stored = np.array([[0, 9, 10, 11, 12, 200]], dtype=np.uint8)
    display = dicom_file(stored, VOILUTSequence=[lookup_table([0, 100, 255], first=10, bits=8)])
    np.testing.assert_array_equal(decode_grey(display)[0], [0, 0, 0, 100, 255, 255])
    modality = dicom_file(
        stored, ModalityLUTSequence=[lookup_table([0, 1000, 4000], first=10, bits=16)],
        WindowCenter=2000, WindowWidth=4000, VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    np.testing.assert_array_equal(decode_grey(modality)[0], [0, 0, 0, 64, 255, 255])


def test_a_12_bit_lookup_table_declared_as_16_bits_is_not_shown_dark() -> None:
    stored = np.array([[0, 2048, 4095]], dtype=np.uint16)
    identity = lookup_table(list(range(4096)), first=0, bits=16)
    np.testing.assert_array_equal(
        decode_grey(dicom_file(stored, BitsStored=12, VOILUTSequence=[identity]))[0], [0, 128, 255]
    )


def test_8_bits_without_a_window_stay_as_they_are() -> None:
    image = bad_images.draw_image() // 2
    np.testing.assert_array_equal(decode_grey(dicom_file(image)), image)
    assert decode_image(dicom_file(image)).coloured_share == 0.0


def test_deeper_values_without_a_window_are_stretched_and_a_few_extremes_are_ignored() -> None:
    stored = draw_12_bits(100, 100)
    without_extremes = decode_grey(dicom_file(stored, BitsStored=12))
    assert without_extremes.min() == 0 and without_extremes.max() == 255 and 110 < without_extremes.mean() < 145
    stored[0, :5], stored[1, :5] = 0, 4095  # letters of lead
    assert np.abs(decode_grey(dicom_file(stored, BitsStored=12)).astype(int) - without_extremes)[2:].max() <= 6
    assert (decode_grey(dicom_file(stored, BitsStored=12, WindowCenter=0, WindowWidth=0)) > 0).any()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_change_other_pixels(photometric: str) -> None:
    stored = draw_12_bits(100, 100).astype(np.int16)
    expected = decode_grey(dicom_file(stored[:, :80], PhotometricInterpretation=photometric))
    stored[:, 80:] = -2000
    padded = dicom_file(stored, PixelPaddingValue=-2000, PhotometricInterpretation=photometric)
    grey = decode_grey(padded)
    assert (grey[:, 80:] == 0).all()
    np.testing.assert_array_equal(grey[:, :80], expected)


def test_pixels_that_are_not_square_are_made_square() -> None:
    stored = bad_images.draw_image(height=80, width=100)
    assert decode_grey(dicom_file(stored, ImagerPixelSpacing=[0.2, 0.1])).shape == (160, 100)
    assert decode_grey(dicom_file(stored, PixelSpacing=[0.1, 0.15])).shape == (80, 150)
    assert decode_grey(dicom_file(stored, PixelSpacing=[0.143, 0.143])).shape == (80, 100)
    assert error_of(dicom_file(stored, PixelSpacing=[1, 100])).problem == "corrupt"
    assert error_of(dicom_file(stored, PixelSpacing=[0.2, 0.1]), max_pixels=8_000).problem == "too_large"


@pytest.mark.parametrize("name", list(COMPRESSED))
def test_every_encoding_of_an_image_gives_the_same_grey_levels(name: str) -> None:
    expected = decode_grey(pydicom_file(COMPRESSED[name]))
    assert expected.shape == (64, 64) and expected.std() > 10
    np.testing.assert_array_equal(decode_grey(pydicom_file(name)), expected)


def test_lossless_jpeg_and_jpeg_2000_are_decoded_by_gdcm(tmp_path: Path) -> None:
    import gdcm

    stored = draw_12_bits(64, 96)
    expected = decode_grey(dicom_file(stored, **WINDOW))
    for kind in (
        gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        gdcm.TransferSyntax.JPEG2000Lossless,
        gdcm.TransferSyntax.JPEGLSLossless,
    ):
        coded, syntax = compress_with_gdcm(dicom_file(stored, **WINDOW), kind, tmp_path)
        np.testing.assert_array_equal(decode_grey(compressed_dicom(stored, coded, syntax, **WINDOW)), expected)
        assert error_of(compressed_dicom(stored, coded[: len(coded) // 2], syntax, **WINDOW)).problem == "truncated"
        assert error_of(compressed_dicom(stored[:, :90], coded, syntax, **WINDOW)).problem == "corrupt"


def test_a_jpeg_inside_a_dicom_file_is_decoded_like_a_jpeg_file_and_its_damage_is_found() -> None:
    image = bad_images.draw_image()
    coded = bad_images.jpeg(image)
    content = compressed_dicom(image, coded, JPEGBaseline8Bit)
    np.testing.assert_array_equal(decode_grey(content), decode_grey(coded))
    damaged = coded[: len(coded) // 2] + coded[len(coded) // 2 + 60 :]
    assert error_of(compressed_dicom(image, damaged, JPEGBaseline8Bit)).problem == "corrupt"
    coloured = bad_images.jpeg(np.dstack([image] * 3))
    assert error_of(compressed_dicom(image, coloured, JPEGBaseline8Bit)).problem == "corrupt"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_of_elements_give_the_same_image(syntax: str) -> None:
    stored = draw_12_bits()
    np.testing.assert_array_equal(
        decode_grey(write_dicom(dicom_dataset(stored, **WINDOW), syntax)), decode_grey(dicom_file(stored, **WINDOW))
    )


def test_a_file_without_preamble_is_read_and_other_images_are_not_taken_for_dicom() -> None:
    content = dicom_file(draw_12_bits(), **WINDOW)
    assert is_dicom(content) and is_dicom(content[132:])
    np.testing.assert_array_equal(decode_grey(content[132:]), decode_grey(content))
    for image_file in (bad_images.jpeg(bad_images.draw_image()), bad_images.png(bad_images.draw_image())):
        assert not is_dicom(image_file[:128] + b"DICM" + image_file[132:])


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "ct": ("modality", {"Modality": "CT"}),
    "dental": ("modality", {"Modality": "PX"}),
    "unknown modality": ("modality", {"Modality": SECRET.upper()}),
    "several frames": ("animated", {"NumberOfFrames": 3}),
    "palette": ("photometric", {"PhotometricInterpretation": "PALETTE COLOR"}),
    "three channels": ("photometric", {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}),
    "colour to be shown": ("photometric", {"PixelPresentation": "COLOR"}),
    "no photometric interpretation": ("corrupt", {"PhotometricInterpretation": None}),
    "no pixels": ("no_pixels", {"PixelData": None}),
    "no rows": ("corrupt", {"Rows": None}),
    "huge": ("too_large", {"Rows": 60_000, "Columns": 60_000}),
    "more rows than pixels": ("truncated", {"Rows": 41}),
    "fewer rows than pixels": ("corrupt", {"Rows": 20}),
    "one bit": ("unsupported", {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}),
    "high bit below the value": ("unsupported", {"BitsStored": 12, "HighBit": 9}),
    "high bit above the pixel": ("unsupported", {"BitsStored": 12, "HighBit": 16}),
    "for processing": ("raw", {"PresentationIntentType": "FOR PROCESSING"}),
    "left lateral": ("not_frontal", {"ViewPosition": "LL"}),
    "lateral in words": ("not_frontal", {"ViewPosition": "LATERAL"}),
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_a_file_that_is_not_one_grey_frontal_radiograph_is_refused(kind: str) -> None:
    problem, tags = REFUSED[kind]
    assert error_of(dicom_file(draw_12_bits(), **tags)).problem == problem


def test_a_lateral_view_is_also_recognised_by_its_code() -> None:
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399173006", "SCT", "left lateral"
    assert error_of(dicom_file(draw_12_bits(), ViewCodeSequence=[view])).problem == "not_frontal"


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "RF", "OT", "SC", "", None])
@pytest.mark.parametrize("view", ["PA", "AP", ""])
def test_frontal_radiographs_and_files_without_these_tags_are_accepted(modality: str | None, view: str) -> None:
    assert decode_grey(dicom_file(draw_12_bits(), Modality=modality, ViewPosition=view)).shape == (40, 60)


def test_a_huge_image_is_refused_before_its_pixels_are_decoded() -> None:
    coded = struct.pack(">HIIIII", 0xFF4F, 0xFF510029, 0, 60_000, 60_000, 0)
    content = compressed_dicom(draw_12_bits(), coded + bytes(40) + b"\xff\xd9", "1.2.840.10008.1.2.4.90", **WINDOW)
    assert error_of(content).problem == "corrupt"  # the tags say 60 x 40, the codestream something else


def test_a_file_truncated_anywhere_is_refused() -> None:
    stored = draw_12_bits()
    coded = bad_images.jpeg(bad_images.draw_image(height=40, width=60))
    contents = [
        dicom_file(stored, **WINDOW),
        write_dicom(dicom_dataset(stored, **WINDOW), DeflatedExplicitVRLittleEndian),
        compressed_dicom(bad_images.draw_image(height=40, width=60), coded, JPEGBaseline8Bit),
    ]
    for content in contents:
        for size in np.random.default_rng(0).integers(140, len(content) - 1, 100):
            assert error_of(content[:size]).problem in {"truncated", "no_pixels", "corrupt"}
        assert error_of(content[: len(content) // 2]).problem == "truncated"


def test_a_deflated_bomb_is_refused_at_its_limit() -> None:
    content = write_dicom(dicom_dataset(draw_12_bits(), **WINDOW), DeflatedExplicitVRLittleEndian)
    meta_end = 132 + 12 + struct.unpack_from("<I", content, 140)[0]
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = content[:meta_end] + compressor.compress(bytes(40_000_000)) + compressor.flush()
    assert len(bomb) < 1_000_000
    assert error_of(bomb).problem == "too_large"


def test_the_depth_of_nested_sequences_is_limited() -> None:
    content = dicom_file(draw_12_bits())
    start = content.index(b"\x08\x00\x16\x00UI")
    sequence = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    assert error_of(content[:start] + sequence * 5_000).problem == "corrupt"
    sequence_ends = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    nested = content[:start] + sequence * 3 + sequence_ends * 3 + content[start:]
    np.testing.assert_array_equal(decode_grey(nested), decode_grey(content))


def test_no_content_causes_another_error_or_reveals_the_patient(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    generator = np.random.default_rng(0)
    stored = draw_12_bits(30, 30)
    sources = [
        dicom_file(stored, **WINDOW, VOILUTSequence=[lookup_table([0, 5, 9], 3, 8)], PixelPaddingValue=3),
        write_dicom(dicom_dataset(stored, **WINDOW), ImplicitVRLittleEndian),
        pydicom_file("MR_small_jpeg_ls_lossless.dcm"),
        pydicom_file("MR_small_jp2klossless.dcm"),
        pydicom_file("MR_small_RLE.dcm"),
    ]
    refused = 0
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        for source in sources:
            for _ in range(60):
                content = bytearray(source)
                for position in generator.integers(132, len(content), 4):
                    content[position] = generator.integers(256)
                try:
                    grey = decode_grey(bytes(content), replace(STRICT, max_pixels=100_000))
                except ImageError as error:
                    refused += 1
                    assert error.problem in PROBLEMS
                    assert SECRET not in str(error)
                else:
                    assert grey.dtype == np.uint8 and grey.size <= 100_000
    assert refused > 20
    assert [str(warning.message) for warning in caught_warnings] == []
    here = threading.get_ident()  # a service of another test may go on to ask its registry
    assert [record for record in caplog.records if record.thread == here] == []
    output = capfd.readouterr()
    assert SECRET not in output.out + output.err


def test_an_unreadable_tag_is_neither_quoted_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    content = dicom_file(draw_12_bits(), **WINDOW, ViewPosition=SECRET.upper(), Modality="DX")
    error = error_of(content.replace(b"2000", b"SECR"))
    assert error.problem == "corrupt"
    assert error.__cause__ is None and error.__suppress_context__
    assert caplog.records == []
    assert decode_grey(content).shape == (40, 60)  # an unknown view does not count as lateral


def test_facts_of_a_radiograph_for_training(tmp_path: Path) -> None:
    content = dicom_file(draw_12_bits(120, 200), **WINDOW)
    (tmp_path / "x.dcm").write_bytes(content)
    facts = inspect_file(tmp_path / "x.dcm")
    assert (facts.width, facts.height, facts.mode, facts.bit_depth) == (200, 120, "I;16", 12)
    assert (facts.problems, facts.readable, facts.grey) == ((), True, True), "a window says how 12 bits are shown"
    assert facts.mean == pytest.approx(decode_grey(content).mean())
    eight_bits = dicom_file(bad_images.draw_image(), PixelSpacing=[0.4, 0.2])
    (tmp_path / "x.jpeg").write_bytes(eight_bits)
    facts = inspect_file(tmp_path / "x.jpeg")
    assert (facts.width, facts.height, facts.mode, facts.bit_depth) == (200, 320, "L", 8)
    assert [problem for problem, _ in facts.problems] == ["wrong_suffix"]


def test_the_header_says_how_much_an_image_is_enlarged_to_square_pixels() -> None:
    image = bad_images.draw_image(height=100, width=80)
    for spacing, enlargement in (([0.2, 0.2], (1, 1)), ([0.3, 0.2], (1.5, 1)), ([0.2, 0.5], (1, 2.5))):
        content = dicom_file(image, PixelSpacing=spacing)
        header = read_dicom_header(content, replace(STRICT, max_pixels=100_000))
        assert (header.height, header.width, header.format) == (100, 80, "DICOM")
        assert header.enlargement == pytest.approx(enlargement)
        assert decode_grey(content).shape == (100 * enlargement[0], 80 * enlargement[1])


def test_the_pixel_limit_includes_its_own_value() -> None:
    image = bad_images.draw_image(height=100, width=100)
    assert read_dicom(dicom_file(image), replace(STRICT, max_pixels=10_000))[1].shape == (100, 100)
    assert error_of(dicom_file(image), max_pixels=9_999).problem == "too_large"


def test_other_transfer_syntaxes_are_unsupported() -> None:
    dataset = dicom_dataset(bad_images.draw_image())
    content = write_dicom(dataset).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.1\0")
    assert error_of(content).problem == "unsupported"
    assert error_of(pydicom_file("JPGExtended.dcm")).problem == "unsupported"

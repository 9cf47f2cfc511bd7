"""DICOM as senders write it: files that break the standard, or use its freedom, and that every viewer shows."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from cxr.errors import ImageError
from cxr.images.decoding import decode_grey, decode_image
from cxr.images.dicom.display import CLIPPED_QUANTILES
from cxr.images.dicom.reader import is_dicom
from cxr.images.reading_options import STRICT, VALIDATED
from support import bad_images
from support.bad_images import error_of, inspect_file
from support.dicom_files import (
    compress_with_gdcm,
    compressed_dicom,
    dicom_dataset,
    dicom_file,
    draw_12_bits,
    lookup_table,
    write_dicom,
)

WINDOW = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 2000}
STORED = draw_12_bits(64, 96)
PADDINGS = (b"\xff", b"\xff\xff\xff", b" ", b"\0" * 7, b"\xff\xd9", b"SOME TEXT\0")


@pytest.fixture(scope="module")
def expected() -> NDArray[np.uint8]:
    return decode_grey(dicom_file(STORED, **WINDOW))


@pytest.mark.parametrize("codec", ["JPEGLosslessProcess14_1", "JPEG2000Lossless", "JPEGLSLossless"])
def test_whatever_follows_the_end_mark_of_a_coded_image_is_ignored(
    codec: str, expected: NDArray[np.uint8], tmp_path: Path
) -> None:
    import gdcm

    coded, syntax = compress_with_gdcm(dicom_file(STORED, **WINDOW), getattr(gdcm.TransferSyntax, codec), tmp_path)
    coded = coded[: coded.rindex(b"\xff\xd9") + 2]
    for padding in PADDINGS:
        np.testing.assert_array_equal(
            decode_grey(compressed_dicom(STORED, coded + padding, syntax, **WINDOW)), expected, str(padding)
        )
    for end in (len(coded) - 2, len(coded) - 1, len(coded) // 3):
        cut_off = compressed_dicom(STORED, coded[:end] + b"\xff\xff", syntax, **WINDOW)
        assert error_of(cut_off).problem in ("truncated", "corrupt"), end


def test_whatever_follows_the_end_mark_of_a_baseline_jpeg_is_ignored() -> None:
    image = bad_images.draw_image()
    coded = bad_images.jpeg(image)
    for padding in PADDINGS:
        content = compressed_dicom(image, coded + padding, JPEGBaseline8Bit)
        np.testing.assert_array_equal(decode_grey(content), decode_grey(coded), str(padding))


def test_a_jpeg_of_8_bits_in_16_allocated_bits_is_read() -> None:
    image = bad_images.draw_image()
    coded = bad_images.jpeg(image)
    deep = compressed_dicom(image.astype(np.uint16), coded, JPEGBaseline8Bit, BitsStored=8, HighBit=7)
    np.testing.assert_array_equal(decode_grey(deep), decode_grey(coded))


@pytest.mark.parametrize("long_box", [False, True])
def test_a_jpeg_2000_with_the_header_of_a_jp2_file_is_read(
    long_box: bool, expected: NDArray[np.uint8], tmp_path: Path
) -> None:
    import gdcm

    coded, syntax = compress_with_gdcm(dicom_file(STORED, **WINDOW), gdcm.TransferSyntax.JPEG2000Lossless, tmp_path)
    boxes = struct.pack(">I4s4s", 12, b"jP  ", b"\r\n\x87\n") + struct.pack(">I4s", 20, b"ftyp") + b"jp2 \0\0\0\0jp2 "
    head = struct.pack(">I4sQ", 1, b"jp2c", len(coded) + 16) if long_box else struct.pack(">I4s", 0, b"jp2c")
    np.testing.assert_array_equal(
        decode_grey(compressed_dicom(STORED, boxes + head + coded, syntax, **WINDOW)), expected
    )
    assert error_of(compressed_dicom(STORED, boxes, syntax, **WINDOW)).problem == "truncated"


def test_padding_behind_uncompressed_pixels_is_ignored(expected: NDArray[np.uint8]) -> None:
    for padding in (b"\0\0", b"\xff" * 128, STORED.tobytes()[:-2]):
        content = dicom_file(STORED, **WINDOW, PixelData=STORED.tobytes() + padding)
        np.testing.assert_array_equal(decode_grey(content), expected)
    two_images = error_of(dicom_file(STORED, **WINDOW, PixelData=STORED.tobytes() * 2))
    assert two_images.problem == "corrupt" and "several images" in two_images.detail


ENCODINGS = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


@pytest.mark.parametrize("stated", ENCODINGS)
@pytest.mark.parametrize("written", ENCODINGS)
def test_elements_are_read_as_they_are_written_whatever_the_file_states(
    stated: str, written: str, expected: NDArray[np.uint8]
) -> None:
    content = write_dicom(dicom_dataset(_byte_order(written), **WINDOW), written)
    start = content.index(bytes.fromhex("0800" if written != ExplicitVRBigEndian else "0008"), 300)
    meta = write_dicom(dicom_dataset(STORED, **WINDOW), ImplicitVRLittleEndian)
    meta = meta[: meta.index(b"\x08\x00\x16\x00")].replace(
        _transfer_syntax(ImplicitVRLittleEndian), _transfer_syntax(stated)
    )
    np.testing.assert_array_equal(decode_grey(meta + content[start:]), expected)


def _byte_order(syntax: str) -> NDArray[np.uint16]:
    return STORED.byteswap() if syntax == ExplicitVRBigEndian else STORED


def _transfer_syntax(uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value


def test_single_elements_without_a_type_are_read(expected: NDArray[np.uint8]) -> None:
    content = dicom_file(STORED, **WINDOW)
    rows = b"\x28\x00\x10\x00US\x02\x00" + struct.pack("<H", 64)
    assert content.count(rows) == 1
    without_type = content.replace(rows, b"\x28\x00\x10\x00" + struct.pack("<IH", 2, 64))
    np.testing.assert_array_equal(decode_grey(without_type), expected)


@pytest.mark.parametrize("syntax", ENCODINGS)
@pytest.mark.parametrize("preamble", [b"", bytes(128) + b"DICM"])
def test_a_file_without_meta_information_is_read(syntax: str, preamble: bytes, expected: NDArray[np.uint8]) -> None:
    content = write_dicom(dicom_dataset(_byte_order(syntax), **WINDOW), syntax)
    elements = content[content.index(bytes.fromhex("0800" if syntax != ExplicitVRBigEndian else "0008"), 300) :]
    assert is_dicom(preamble + elements) and is_dicom((preamble + elements)[:512])
    np.testing.assert_array_equal(decode_grey(preamble + elements), expected)


def test_compressed_pixels_without_meta_information_are_refused_with_what_is_missing() -> None:
    coded = compressed_dicom(STORED, b"\xff\x4f\xff\x51" + bytes(100), JPEG2000Lossless, **WINDOW)
    error = error_of(coded[coded.index(b"\x08\x00\x16\x00UI") :])
    assert error.problem == "unsupported" and "transfer syntax" in error.detail and "export it again" in error.detail


@pytest.mark.parametrize("content", [b"\x08\x00" * 200, b"\x08\x00\x16\x00UI", bytes(600), b"\x00\x08" + bytes(600)])
def test_other_content_is_not_taken_for_elements_of_dicom(content: bytes) -> None:
    assert not is_dicom(content)


def test_an_empty_or_broken_table_beside_a_window_is_ignored(expected: NDArray[np.uint8]) -> None:
    empty, without_entries, short = Dataset(), lookup_table([0, 1], 0, 16), lookup_table([0, 255], 0, 8)
    empty.add_new("LUTDescriptor", "US", None)
    empty.add_new("LUTData", "OW", None)
    without_entries.LUTData = None
    short.LUTDescriptor = [4096, 0, 8]
    for table in (empty, without_entries, short, Dataset()):
        np.testing.assert_array_equal(decode_grey(dicom_file(STORED, **WINDOW, VOILUTSequence=[table])), expected)
    assert error_of(dicom_file(STORED, BitsStored=12, VOILUTSequence=[short])).problem == "corrupt"
    np.testing.assert_array_equal(
        decode_grey(dicom_file(STORED, BitsStored=12, VOILUTSequence=[empty])),
        decode_grey(dicom_file(STORED, BitsStored=12)),
    )


def test_an_empty_modality_table_leaves_the_rescaling() -> None:
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -100}
    np.testing.assert_array_equal(
        decode_grey(dicom_file(STORED, **WINDOW, **rescale, ModalityLUTSequence=[Dataset()])),
        decode_grey(dicom_file(STORED, **WINDOW, **rescale)),
    )


def test_zeros_behind_the_last_element_are_ignored(expected: NDArray[np.uint8]) -> None:
    content = dicom_file(STORED, **WINDOW)
    for count in (1, 7, 8, 512, 100_001):
        np.testing.assert_array_equal(decode_grey(content + bytes(count)), expected)
    assert error_of(content + bytes(512) + b"\1").problem in ("corrupt", "truncated")


@pytest.mark.parametrize("high_bit", [11, 12, 15])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_a_value_may_lie_in_any_bits_of_its_pixel(high_bit: int, syntax: str, expected: NDArray[np.uint8]) -> None:
    noise = np.random.default_rng(0).integers(0, 2, STORED.shape, dtype=np.uint16)
    unused = noise << 15 if high_bit < 15 else noise  # as an overlay that is kept there
    values = STORED << (high_bit - 11) | unused
    if syntax == RLELossless:
        dataset = pydicom.dcmread(_as_file(dicom_file(values, **WINDOW, HighBit=high_bit)))
        dataset.compress(RLELossless)
        content = write_dicom(dataset)
    else:
        stored = values.byteswap() if syntax == ExplicitVRBigEndian else values
        content = write_dicom(dicom_dataset(stored, **WINDOW, HighBit=high_bit), syntax)
    np.testing.assert_array_equal(decode_grey(content), expected)


def _as_file(content: bytes) -> Any:
    from io import BytesIO

    return BytesIO(content)


def test_signed_values_in_the_upper_bits_keep_their_sign(expected: NDArray[np.uint8]) -> None:
    signed = ((STORED.astype(np.int32) - 2048) << 4).astype(np.int16)
    window = {"BitsStored": 12, "WindowCenter": 2000 - 2048, "WindowWidth": 2000}
    np.testing.assert_array_equal(decode_grey(dicom_file(signed, **window, HighBit=15)), expected)


def test_decimal_commas_are_read() -> None:
    plain = {"WindowCenter": "2000.5", "WindowWidth": "1999.25", "RescaleSlope": "1.5", "RescaleIntercept": "-10.0",
             "PixelSpacing": "0.20\\0.10"}  # fmt: skip
    content = dicom_file(STORED, BitsStored=12, **plain)
    with_commas = content
    for number in (b"2000.5", b"1999.25", b"1.5 ", b"-10.0", b"0.20\\0.10"):
        assert with_commas.count(number) == 1
        with_commas = with_commas.replace(number, number.replace(b".", b","))
    grey = decode_grey(with_commas)
    assert grey.shape == (128, 96)
    np.testing.assert_array_equal(grey, decode_grey(content))


@pytest.mark.parametrize("modality", ["DR", "XR", " dr", "X-RAY"])
def test_other_names_of_radiography_are_accepted_with_a_warning(
    modality: str, expected: NDArray[np.uint8], tmp_path: Path
) -> None:
    content = dicom_file(STORED, **WINDOW, Modality=modality)
    image = decode_image(content)
    np.testing.assert_array_equal(image.grey, expected)
    assert [kind for kind, _ in image.warnings] == ["other_modality"]
    assert decode_image(dicom_file(STORED, **WINDOW)).warnings == ()
    (tmp_path / "x.dcm").write_bytes(content)
    facts = inspect_file(tmp_path / "x.dcm")
    assert facts.readable and [kind for kind, _ in facts.problems] == ["other_modality"]
    with pytest.raises(ImageError, match="add its modality to other_modalities") as caught:
        decode_grey(content, replace(STRICT, other_modalities=frozenset()))
    assert caught.value.problem == "modality" and modality.strip() not in caught.value.detail


def test_a_transfer_syntax_that_is_not_read_is_named() -> None:
    coded = compressed_dicom(STORED, bytes(100), "1.2.840.10008.1.2.4.201", **WINDOW)
    assert "High-Throughput JPEG 2000" in error_of(coded).detail
    private = coded.replace(b"1.2.840.10008.1.2.4.201", b"1.2.840.99999.1.2.4.201")
    assert "not in the standard" in error_of(private).detail


def _package_files() -> list[Path]:
    root = Path(pydicom.__file__).parent / "data"
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))


def test_all_grey_images_of_the_pydicom_package_are_shown_as_pydicom_shows_them() -> None:
    compared = []
    for path in _package_files():
        content = path.read_bytes()
        if not is_dicom(content):
            continue
        dataset = pydicom.dcmread(path, force=True)
        if "PixelData" not in dataset or int(str(dataset.get("NumberOfFrames") or 1).strip("A")) > 1:
            continue
        if dataset.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
            continue
        try:
            grey = decode_grey(content, VALIDATED)
        except ImageError as error:
            if path.name in DAMAGED:
                continue
            # Lateral views, doses of 32 bits, segmentations of 1 bit, lossy JPEG of 12 bits, and a cut-off file.
            assert error.problem in ("not_frontal", "unsupported", "truncated"), (path, error)
            continue
        shown = _show(dataset)
        if shown.shape == grey.shape:  # where pixels are square
            compared.append(path.name)
            padding = dataset.get("PixelPaddingValue")
            valid = np.ones(grey.shape, bool) if padding is None else dataset.pixel_array != padding
            assert np.abs(grey.astype(int) - shown)[valid].max() <= 1, path
    assert len(compared) > 40
    assert {"CT_small.dcm", "MR_small_RLE.dcm", "693_J2KI.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_16.dcm"} <= set(
        compared
    )


DAMAGED = ("JPEG2000-embedded-sequence-delimiter.dcm", "badVR.dcm")
"""Files whose size or number of images was overwritten with something else."""


def _show(dataset: Dataset) -> NDArray[np.float64]:
    """Show an image with pydicom's tables, 0 to 255; without a window or a table as this project states it."""
    values = apply_modality_lut(dataset.pixel_array, dataset)
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    if dataset.get("WindowCenter") is not None or "VOILUTSequence" in dataset:
        slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
        low, high = low * slope + intercept, high * slope + intercept
        values = apply_voi_lut(values, dataset, prefer_lut=True)
    elif bits > 8 or signed:
        ordered = np.sort(values[values != dataset.get("PixelPaddingValue")], axis=None)
        low, high = (float(ordered[max(int(np.ceil(q * len(ordered))) - 1, 0)]) for q in CLIPPED_QUANTILES)
    share = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        share = 1 - share
    return np.asarray(np.rint(share * 255), dtype=np.float64)


def test_a_16_bit_png_is_scaled_from_its_own_range_with_a_warning() -> None:
    deep = bad_images.png(np.array([[1000, 2000], [3000, 4000]], dtype=np.uint16))
    with pytest.raises(ImageError, match="scale_16_bit") as caught:
        decode_image(deep)
    assert caught.value.problem == "depth_16"
    image = decode_image(deep, replace(STRICT, scale_16_bit=True))
    np.testing.assert_array_equal(image.grey, [[0, 85], [170, 255]])
    assert [kind for kind, _ in image.warnings] == ["depth_16"]

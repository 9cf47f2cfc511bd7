"""Decoding of single images: sound files are decoded exactly, bad files are never accepted silently."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from cxr.errors import ImageError
from cxr.images.decoding import decode_grey, read_bytes
from cxr.images.headers import read_header
from cxr.images.perceptual_hash import perceptual_hash
from cxr.images.problems import PROBLEMS, SOFT_PROBLEMS, TRAINING_PROBLEMS
from cxr.images.reading_options import STRICT
from cxr.images.sharpness import measure_sharpness
from support import bad_images
from support.bad_images import IMAGE_LIMITS as LIMITS
from support.bad_images import error_of, inspect_file

REFUSED = [
    "empty",
    "truncated",
    "truncated_png",
    "closed_half",
    "overwritten",
    "flipped_png",
    "text",
    "static_gif",
]
REFUSED += ["animated_gif", "animated_png", "cmyk", "depth_16", "bomb", "jpeg_bomb"]


def jpeg_with_three_scans() -> bytes:
    """Combine three grey JPEGs to a baseline JPEG of three channels with a scan for each, as some cameras write."""
    contents = [bad_images.jpeg(bad_images.draw_image(seed)) for seed in range(3)]
    first, frame = contents[0], contents[0].index(b"\xff\xc0")
    channels = b"".join(bytes([channel, 0x11, 0]) for channel in (1, 2, 3))
    header = first[:frame] + b"\xff\xc0\x00\x11" + first[frame + 4 : frame + 9] + b"\x03" + channels
    header += first[frame + 13 : first.index(b"\xff\xda")]
    scans = [
        b"\xff\xda\x00\x08\x01" + bytes([channel, 0, 0, 63, 0]) + content[content.index(b"\xff\xda") + 10 : -2]
        for channel, content in enumerate(contents, start=1)
    ]
    return header + b"".join(scans) + b"\xff\xd9"


def jpeg_with_unusual_sampling() -> bytes:
    """Write a grey image of 24 x 8 pixels whose luma has three times as many columns as its chroma."""
    image = np.full((8, 24, 3), 128, dtype=np.uint8)
    content = bytearray(bad_images.jpeg(image, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111))
    content[content.index(b"\xff\xc0") + 11] = 0x31
    scan = content.index(b"\xff\xda")
    content[scan + 6] = content[scan + 8] = content[scan + 10] = 0  # the Huffman tables of luma for all channels
    # Five blocks of 0 in these tables are 001010 each; the last byte is filled with ones.
    return bytes(content[: scan + 14]) + int("001010" * 5 + "11", 2).to_bytes(4, "big") + b"\xff\xd9"


@pytest.mark.parametrize("kind", REFUSED)
def test_decoding_refuses_what_a_decoder_would_have_to_guess(kind: str, tmp_path: Path) -> None:
    problem, write = bad_images.BAD[kind]
    write(tmp_path / "x.jpeg")
    assert error_of((tmp_path / "x.jpeg").read_bytes()).problem == problem


@pytest.mark.parametrize("kind", list(bad_images.BAD))
def test_inspection_names_the_problem_and_does_not_raise(kind: str, tmp_path: Path) -> None:
    problem, write = bad_images.BAD[kind]
    path = tmp_path / ("x.png" if kind == "depth_16" else "x.jpeg")
    write(path)
    facts = inspect_file(path, LIMITS)
    assert [found_problem for found_problem, _ in facts.problems] == [problem]
    assert facts.problems[0][1]
    assert facts.readable == (problem in SOFT_PROBLEMS)
    assert problem in TRAINING_PROBLEMS


def test_every_hard_problem_of_a_file_has_a_bad_image_that_shows_it() -> None:
    expected = set(TRAINING_PROBLEMS) - {"misplaced", "misnamed", "mislabelled", "unreadable", "other_modality"}
    assert {problem for problem, _ in bad_images.BAD.values()} == expected


def test_facts_of_a_sound_image(tmp_path: Path) -> None:
    path = tmp_path / "x.jpeg"
    bad_images.sound(path)
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    facts = inspect_file(path, LIMITS)
    assert facts.problems == ()
    assert (facts.width, facts.height, facts.mode, facts.bit_depth) == (200, 160, "L", 8)
    assert (facts.readable, facts.grey, facts.bytes) == (True, True, path.stat().st_size)
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.mean == pytest.approx(grey.mean())
    assert facts.std == pytest.approx(grey.std())
    assert len(facts.phash) == 16


def test_decoding_equals_opencv_for_each_kind_of_sound_file() -> None:
    image = bad_images.draw_image()
    coloured = cv2.merge([image, 255 - image, image // 2])
    restarts = [cv2.IMWRITE_JPEG_RST_INTERVAL, 7]
    contents = [
        bad_images.jpeg(image),
        bad_images.jpeg(coloured),
        bad_images.jpeg(image, *restarts),
        bad_images.jpeg(coloured, *restarts),
        bad_images.jpeg(coloured, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        bad_images.jpeg(image[:13, :17]),
        bad_images.jpeg(np.zeros((400, 300), dtype=np.uint8)),
        bad_images.png(image),
        bad_images.png(coloured),
    ]
    for content in contents:
        expected = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(decode_grey(content), expected)


def test_bytes_after_the_end_mark_are_allowed() -> None:
    content = bad_images.jpeg(bad_images.draw_image())
    np.testing.assert_array_equal(decode_grey(content + b"camera notes"), decode_grey(content))


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("encode", [bad_images.jpeg, bad_images.png])
def test_a_file_that_ends_early_is_truncated(encode, share: float) -> None:
    content = encode(bad_images.draw_image())
    assert error_of(content[: max(1, int(len(content) * share))]).problem == "truncated"


def test_a_thumbnail_inside_does_not_hide_a_missing_end() -> None:
    content = bad_images.jpeg(bad_images.draw_image())
    thumbnail = b"Exif\0\0" + bad_images.jpeg(bad_images.draw_image(height=16, width=16))
    with_thumbnail = content[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + content[2:]
    assert decode_grey(with_thumbnail).shape == (160, 200)
    assert error_of(with_thumbnail[:-400]).problem == "truncated"


def test_damage_between_restart_marks_is_found() -> None:
    content = bad_images.jpeg(bad_images.draw_image(), cv2.IMWRITE_JPEG_RST_INTERVAL, 25)
    first, second = content.index(b"\xff\xd2"), content.index(b"\xff\xd3")
    middle = (first + second) // 2
    assert error_of(content[:middle] + content[second:]).problem == "corrupt"
    assert error_of(content[:first] + content[second:]).problem == "corrupt"
    assert error_of(content[:second] + b"\x12\x34\x56\x78" + content[second:]).problem == "corrupt"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_damage_in_a_progressive_jpeg_is_found(share: float) -> None:
    content = bad_images.jpeg(bad_images.draw_image(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    position = int(len(content) * share)
    assert error_of(content[:position] + content[position + 60 :]).problem == "corrupt"


def test_damage_in_a_jpeg_with_several_scans_is_found() -> None:
    content = jpeg_with_three_scans()
    expected = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decode_grey(content), expected)
    second_scan = content.index(b"\xff\xda", content.index(b"\xff\xda") + 2)
    assert error_of(content[: second_scan - 30] + content[second_scan:]).problem == "corrupt"


def test_a_jpeg_with_unusual_sampling_factors_is_decoded() -> None:
    np.testing.assert_array_equal(decode_grey(jpeg_with_unusual_sampling()), np.full((8, 24), 128, dtype=np.uint8))


def test_exchanged_parts_of_a_jpeg_are_found_by_the_order_of_their_restart_marks() -> None:
    content = bad_images.jpeg(bad_images.draw_image(), cv2.IMWRITE_JPEG_RST_INTERVAL, 25)
    cuts = [content.index(bytes([0xFF, mark])) for mark in (0xD2, 0xD3, 0xD4)]
    parts = content[: cuts[0]], content[cuts[0] : cuts[1]], content[cuts[1] : cuts[2]], content[cuts[2] :]
    error = error_of(parts[0] + parts[2] + parts[1] + parts[3])
    assert error.problem == "corrupt" and "instead of RST" in error.detail


def test_a_wrong_check_sum_is_found_before_a_png_is_decoded(tmp_path: Path) -> None:
    bad_images.flipped_png(tmp_path / "x.png")
    with pytest.raises(ImageError, match="checksum"):
        read_header((tmp_path / "x.png").read_bytes())


def test_no_content_causes_another_error() -> None:
    generator = np.random.default_rng(0)
    sources = [
        bad_images.jpeg(bad_images.draw_image(height=40, width=40)),
        bad_images.jpeg(bad_images.draw_image(height=40, width=40), cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
        bad_images.png(bad_images.draw_image(height=40, width=40)),
    ]
    for source in sources:
        for _ in range(300):
            content = bytearray(source)
            for position in generator.integers(2, len(content), 3):
                content[position] = generator.integers(256)
            try:
                grey = decode_grey(bytes(content), replace(STRICT, max_pixels=100_000))
            except ImageError as error:
                assert error.problem in PROBLEMS
            else:
                assert grey.dtype == np.uint8 and grey.size <= 100_000


def test_pixels_are_limited_by_the_header_alone() -> None:
    content = bad_images.jpeg(bad_images.draw_image(height=100, width=100))
    assert decode_grey(content, replace(STRICT, max_pixels=10_000)).shape == (100, 100)
    assert error_of(content, replace(STRICT, max_pixels=9_999)).problem == "too_large"


def test_16_bits_are_stretched_over_their_own_range_when_asked_for() -> None:
    deep = np.array([[1000, 2000], [3000, 5000]], dtype=np.uint16).repeat(8, 0).repeat(8, 1)
    grey = decode_grey(bad_images.png(deep), replace(STRICT, scale_16_bit=True))
    assert grey[0, 0] == 0 and grey[-1, -1] == 255
    assert grey[0, -1] == round(255 * 1000 / 4000)
    assert error_of(bad_images.png(deep)).problem == "depth_16"


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_exif_is_applied(orientation: int, byte_order: str, tmp_path: Path) -> None:
    image = Image.fromarray(bad_images.draw_image(height=80, width=120))
    exif = image.getexif()
    exif[0x0112] = orientation
    exif.endian = byte_order
    image.save(tmp_path / "x.jpeg", exif=exif)
    grey = decode_grey((tmp_path / "x.jpeg").read_bytes())
    np.testing.assert_array_equal(grey, cv2.imread(str(tmp_path / "x.jpeg"), cv2.IMREAD_GRAYSCALE))
    assert grey.shape == ((120, 80) if orientation > 4 else (80, 120))
    facts = inspect_file(tmp_path / "x.jpeg", LIMITS)
    assert (facts.height, facts.width) == grey.shape


def test_colour_becomes_luma_and_grey_in_three_channels_is_grey(tmp_path: Path) -> None:
    red = np.zeros((80, 80, 3), dtype=np.uint8)
    red[:, :, 2] = 255
    assert abs(int(decode_grey(bad_images.png(red))[0, 0]) - 76) <= 1
    (tmp_path / "x.jpeg").write_bytes(bad_images.jpeg(cv2.cvtColor(bad_images.draw_image(), cv2.COLOR_GRAY2BGR)))
    facts = inspect_file(tmp_path / "x.jpeg", LIMITS)
    assert (facts.mode, facts.grey, facts.problems) == ("RGB", True, ())


def files_with_three_channels() -> dict[str, bytes]:
    image = bad_images.draw_image()
    grey = cv2.merge([image, image, image])
    tinted = cv2.merge([image, cv2.add(image, 3), image])
    one_coloured_pixel = grey.copy()
    one_coloured_pixel[7, 9] = (0, 0, 255)
    deep = grey.astype(np.uint16) * 257
    return {
        "grey JPEG": bad_images.jpeg(grey),
        "progressive JPEG": bad_images.jpeg(grey, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "tinted JPEG": bad_images.jpeg(tinted),
        "black and white JPEG": bad_images.jpeg(cv2.merge([np.where(image < 128, np.uint8(0), np.uint8(255))] * 3)),
        "grey PNG": bad_images.png(grey),
        "grey PNG with transparency": bad_images.png(cv2.merge([image, image, image, image // 2])),
        "tinted PNG": bad_images.png(tinted),
        "PNG with one coloured pixel": bad_images.png(one_coloured_pixel),
        "PNG of 16 bits": bad_images.png(deep),
    }


@pytest.mark.parametrize("kind", files_with_three_channels())
def test_inspection_sees_the_grey_levels_that_decoding_returns(kind: str, tmp_path: Path) -> None:
    content = files_with_three_channels()[kind]
    (tmp_path / "x").write_bytes(content)
    options = replace(STRICT, scale_16_bit=True)
    facts = inspect_file(tmp_path / "x", replace(LIMITS, options=options))
    grey = decode_grey(content, options)
    assert (facts.mean, facts.std) == (pytest.approx(grey.mean()), pytest.approx(grey.std()))
    assert (facts.phash, facts.sharpness) == (perceptual_hash(grey), measure_sharpness(grey))
    assert facts.grey == (kind != "PNG with one coloured pixel")


def test_inspection_decodes_a_grey_image_in_three_channels_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    for library, name in ((simplejpeg, "decode_jpeg"), (cv2, "imdecode")):
        decode = getattr(library, name)
        monkeypatch.setattr(
            library, name, lambda *a, name=name, decode=decode, **k: (decoded.append(name), decode(*a, **k))[1]
        )
    for kind, decoder in (("grey JPEG", "decode_jpeg"), ("grey PNG", "imdecode")):
        (tmp_path / "x").write_bytes(files_with_three_channels()[kind])
        assert inspect_file(tmp_path / "x", LIMITS).readable
        assert decoded == [decoder]
        decoded.clear()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_inspection_finds_damage_in_an_image_with_three_channels(share: float, tmp_path: Path) -> None:
    for kind in ("grey JPEG", "progressive JPEG"):
        content = files_with_three_channels()[kind]
        middle = int(len(content) * share)
        (tmp_path / "x").write_bytes(content[:middle] + bytes(300) + content[middle + 300 :])
        assert [problem for problem, _ in inspect_file(tmp_path / "x", LIMITS).problems] == ["corrupt"]


def test_limits_decide_what_is_too_small_too_narrow_or_too_large(tmp_path: Path) -> None:
    path = tmp_path / "x.jpeg"
    path.write_bytes(bad_images.jpeg(bad_images.draw_image(height=100, width=150)))
    assert inspect_file(path, LIMITS).problems == ()
    facts = inspect_file(path, replace(LIMITS, min_side=101, max_aspect=1.4))
    assert [problem for problem, _ in facts.problems] == ["too_small", "aspect"]
    assert inspect_file(path, replace(LIMITS, min_side=100, max_aspect=1.5)).problems == ()
    facts = inspect_file(path, replace(LIMITS, max_bytes=10))
    assert [problem for problem, _ in facts.problems] == ["too_large"]
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_missing_file_a_folder_and_a_link_are_not_read(tmp_path: Path) -> None:
    bad_images.symlink(tmp_path / "link.jpeg")
    for name, problem in (("gone.jpeg", "unreadable"), (".", "special"), ("link.jpeg", "symlink")):
        with pytest.raises(ImageError) as caught:
            read_bytes(tmp_path / name)
        assert caught.value.problem == problem


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    bad_images.sound(tmp_path / "x.jpeg")
    (tmp_path / "x.jpeg").chmod(0)
    assert inspect_file(tmp_path / "x.jpeg", LIMITS).problems[0][0] == "unreadable"


@pytest.mark.real
def test_full_size_radiographs_are_sound_and_their_damaged_copies_are_not(real_originals: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(real_originals, tmp_path)
    files = sorted(tmp_path.rglob("*.jpeg"))
    assert len(files) == 51
    for path in files[::4]:
        content = path.read_bytes()
        expected = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(decode_grey(content), expected)
        assert error_of(content[: len(content) * 2 // 3]).problem == "truncated"
        middle = len(content) // 2
        assert error_of(content[:middle] + content[middle + 500 :]).problem == "corrupt"


@pytest.mark.parametrize(("shape", "level"), [((368, 453), 127), ((405, 505), 3), ((404, 463), 255), ((120, 120), 90)])
def test_an_image_of_one_grey_level_is_blank_whatever_its_size(
    tmp_path: Path, shape: tuple[int, int], level: int
) -> None:
    """The mean of equal pixels is rounded, so that their computed deviation may be a little above 0."""
    path = tmp_path / "x.png"
    assert cv2.imwrite(str(path), np.full(shape, level, np.uint8))
    facts = inspect_file(path, LIMITS)
    assert facts.problems == (("blank", f"all pixels have the grey level {level}"),)
    assert (facts.mean, facts.std, facts.phash) == (pytest.approx(level), 0, "")

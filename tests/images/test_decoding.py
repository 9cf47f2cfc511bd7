"""Reading single images: sound ones as they are, bad ones never silently."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cxr.errors import ImageError
from cxr.images.decoding import PROBLEMS, SOFT, TRAINING_PROBLEMS, Limits, decode_grey, inspect, read_bytes
from cxr.images.headers import read_header
from support import bad_images

STRICT = [
    "empty",
    "truncated",
    "truncated_png",
    "closed_half",
    "overwritten",
    "flipped_png",
    "text",
    "static_gif",
]
STRICT += ["animated_gif", "animated_png", "cmyk", "depth_16", "bomb", "jpeg_bomb"]


def error_of(content: bytes, **options: bool | int) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_grey(content, **options)
    return caught.value


@pytest.mark.parametrize("kind", STRICT)
def test_decoding_refuses_what_a_decoder_would_have_to_guess(kind: str, tmp_path: Path) -> None:
    problem, write = bad_images.BAD[kind]
    write(tmp_path / "x.jpeg")
    assert error_of((tmp_path / "x.jpeg").read_bytes()).problem == problem


@pytest.mark.parametrize("kind", list(bad_images.BAD))
def test_inspection_names_the_problem_and_does_not_raise(kind: str, tmp_path: Path) -> None:
    problem, write = bad_images.BAD[kind]
    path = tmp_path / ("x.png" if kind == "depth_16" else "x.jpeg")
    write(path)
    facts = inspect(path)
    assert [found for found, _ in facts.problems] == [problem]
    assert facts.problems[0][1]
    assert facts.readable == (problem in SOFT)
    assert problem in TRAINING_PROBLEMS


def test_every_hard_problem_of_a_file_has_a_bad_image_that_shows_it() -> None:
    of_content = set(TRAINING_PROBLEMS) - {"misplaced", "misnamed", "mislabelled", "unreadable"}
    assert {problem for problem, _ in bad_images.BAD.values()} == of_content


def test_facts_of_a_sound_image(tmp_path: Path) -> None:
    path = tmp_path / "x.jpeg"
    bad_images.good(path)
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    facts = inspect(path)
    assert facts.problems == ()
    assert (facts.width, facts.height, facts.mode, facts.bit_depth) == (200, 160, "L", 8)
    assert (facts.readable, facts.grey, facts.bytes) == (True, True, path.stat().st_size)
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.mean == pytest.approx(grey.mean())
    assert facts.std == pytest.approx(grey.std())
    assert len(facts.phash) == 16


def test_decoding_equals_opencv_for_each_kind_of_sound_file() -> None:
    picture = bad_images.picture()
    three = cv2.merge([picture, 255 - picture, picture // 2])
    restarts = [cv2.IMWRITE_JPEG_RST_INTERVAL, 7]
    contents = [
        bad_images.jpeg(picture),
        bad_images.jpeg(three),
        bad_images.jpeg(picture, *restarts),
        bad_images.jpeg(three, *restarts),
        bad_images.jpeg(three, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        bad_images.jpeg(picture[:13, :17]),
        bad_images.jpeg(np.zeros((400, 300), dtype=np.uint8)),
        bad_images.png(picture),
        bad_images.png(three),
    ]
    for content in contents:
        expected = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(decode_grey(content), expected)


def test_bytes_after_the_end_mark_are_no_damage() -> None:
    content = bad_images.jpeg(bad_images.picture())
    np.testing.assert_array_equal(decode_grey(content + b"camera notes"), decode_grey(content))


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("encode", [bad_images.jpeg, bad_images.png])
def test_a_file_cut_anywhere_is_truncated(encode, share: float) -> None:
    content = encode(bad_images.picture())
    assert error_of(content[: max(1, int(len(content) * share))]).problem == "truncated"


def test_a_thumbnail_inside_does_not_hide_a_missing_end() -> None:
    content = bad_images.jpeg(bad_images.picture())
    thumbnail = b"Exif\0\0" + bad_images.jpeg(bad_images.picture(height=16, width=16))
    whole = content[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + content[2:]
    assert decode_grey(whole).shape == (160, 200)
    assert error_of(whole[:-400]).problem == "truncated"


def test_damage_between_restart_marks_is_found() -> None:
    content = bad_images.jpeg(bad_images.picture(), cv2.IMWRITE_JPEG_RST_INTERVAL, 25)
    first, second = content.index(b"\xff\xd2"), content.index(b"\xff\xd3")
    middle = (first + second) // 2
    assert error_of(content[:middle] + content[second:]).problem == "corrupt"
    assert error_of(content[:first] + content[second:]).problem == "corrupt"
    assert error_of(content[:second] + b"\x12\x34\x56\x78" + content[second:]).problem == "corrupt"


def test_exchanged_parts_of_a_jpeg_are_found_by_the_order_of_their_marks() -> None:
    content = bad_images.jpeg(bad_images.picture(), cv2.IMWRITE_JPEG_RST_INTERVAL, 25)
    cuts = [content.index(bytes([0xFF, mark])) for mark in (0xD2, 0xD3, 0xD4)]
    parts = content[: cuts[0]], content[cuts[0] : cuts[1]], content[cuts[1] : cuts[2]], content[cuts[2] :]
    with pytest.raises(ImageError, match="in order"):
        read_header(parts[0] + parts[2] + parts[1] + parts[3])


def test_a_wrong_check_sum_is_found_before_a_png_is_decoded(tmp_path: Path) -> None:
    bad_images.flipped_png(tmp_path / "x.png")
    with pytest.raises(ImageError, match="check sum"):
        read_header((tmp_path / "x.png").read_bytes())


def test_no_content_whatever_escapes_as_another_error() -> None:
    generator = np.random.default_rng(0)
    sources = [
        bad_images.jpeg(bad_images.picture(height=40, width=40)),
        bad_images.jpeg(bad_images.picture(height=40, width=40), cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
        bad_images.png(bad_images.picture(height=40, width=40)),
    ]
    for source in sources:
        for _ in range(300):
            content = bytearray(source)
            for position in generator.integers(2, len(content), 3):
                content[position] = generator.integers(256)
            try:
                grey = decode_grey(bytes(content), max_pixels=100_000)
            except ImageError as error:
                assert error.problem in PROBLEMS
            else:
                assert grey.dtype == np.uint8 and grey.size <= 100_000


def test_pixels_are_limited_by_the_header_alone() -> None:
    content = bad_images.jpeg(bad_images.picture(height=100, width=100))
    assert decode_grey(content, max_pixels=10_000).shape == (100, 100)
    assert error_of(content, max_pixels=9_999).problem == "too_large"


def test_16_bits_are_stretched_over_their_own_range_when_asked_for() -> None:
    deep = np.array([[1000, 2000], [3000, 5000]], dtype=np.uint16).repeat(8, 0).repeat(8, 1)
    grey = decode_grey(bad_images.png(deep), scale_16_bit=True)
    assert grey[0, 0] == 0 and grey[-1, -1] == 255
    assert grey[0, -1] == round(255 * 1000 / 4000)
    assert error_of(bad_images.png(deep)).problem == "depth_16"


def test_the_array_is_turned_as_a_viewer_would_turn_it(tmp_path: Path) -> None:
    image = Image.fromarray(bad_images.picture(height=80, width=120))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpeg", exif=exif)
    assert decode_grey((tmp_path / "x.jpeg").read_bytes()).shape == (120, 80)
    facts = inspect(tmp_path / "x.jpeg")
    assert (facts.width, facts.height) == (80, 120)


def test_colour_becomes_luma_and_grey_in_three_channels_is_grey(tmp_path: Path) -> None:
    red = np.zeros((80, 80, 3), dtype=np.uint8)
    red[:, :, 2] = 255
    assert abs(int(decode_grey(bad_images.png(red))[0, 0]) - 76) <= 1
    (tmp_path / "x.jpeg").write_bytes(bad_images.jpeg(cv2.cvtColor(bad_images.picture(), cv2.COLOR_GRAY2BGR)))
    facts = inspect(tmp_path / "x.jpeg")
    assert (facts.mode, facts.grey, facts.problems) == ("RGB", True, ())


def test_limits_decide_what_is_too_small_too_narrow_or_too_large(tmp_path: Path) -> None:
    path = tmp_path / "x.jpeg"
    path.write_bytes(bad_images.jpeg(bad_images.picture(height=100, width=150)))
    assert inspect(path).problems == ()
    both = inspect(path, Limits(min_side=101, max_aspect=1.4))
    assert [problem for problem, _ in both.problems] == ["too_small", "aspect"]
    assert inspect(path, Limits(min_side=100, max_aspect=1.5)).problems == ()
    large = inspect(path, Limits(max_bytes=10))
    assert [problem for problem, _ in large.problems] == ["too_large"]
    assert large.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_missing_file_a_folder_and_a_link_are_not_read(tmp_path: Path) -> None:
    bad_images.symlink(tmp_path / "link.jpeg")
    for name, problem in (("gone.jpeg", "unreadable"), (".", "special"), ("link.jpeg", "symlink")):
        with pytest.raises(ImageError) as caught:
            read_bytes(tmp_path / name)
        assert caught.value.problem == problem


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    bad_images.good(tmp_path / "x.jpeg")
    (tmp_path / "x.jpeg").chmod(0)
    assert inspect(tmp_path / "x.jpeg").problems[0][0] == "unreadable"


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
        if read_header(content).pieces:
            middle = len(content) // 2
            assert error_of(content[:middle] + content[middle + 500 :]).problem == "corrupt"

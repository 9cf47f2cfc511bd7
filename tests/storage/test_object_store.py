"""Object storage: a real S3 server on this machine (moto), whose responses can be cut, held back or refused."""

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from cxr.data.dataset import CLASSES
from cxr.errors import SourceError, TransferError
from cxr.images.file_types import HEAD_BYTES
from cxr.storage.connection import MAX_ATTEMPTS
from cxr.storage.object_store import ObjectStoreContents
from support.dicom_files import dicom_file, draw_12_bits
from support.fetch_requests import fetch_images
from support.s3_server import BROKEN, DAMAGED, HALF, OVERLOADED, S3Server

BIG = bytes(range(256)) * (HALF // 128)


def read_all(contents: ObjectStoreContents) -> dict[str, bytes]:
    paths = [file.path for file in contents.entries]
    return {str(file.path): b"".join(pieces) for file, pieces in contents.read(paths)}


def error_message(function: Callable[[], object]) -> str:
    with pytest.raises(SourceError) as caught:
        function()
    return str(caught.value)


def test_objects_below_the_prefix_are_read_and_no_others(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/NORMAL/a.png", b"a")
    s3_store.put("set/NORMAL/", b"")
    s3_store.put("set/empty.txt", b"")
    s3_store.put("set2/NORMAL/b.png", b"b")
    assert read_all(s3_store.open("set/", tmp_path)) == {"NORMAL/a.png": b"a", "empty.txt": b""}


def test_one_object_is_named_by_its_last_part(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("sets/kermany.tar", b"tar")
    assert read_all(s3_store.open("sets/kermany.tar", tmp_path)) == {"kermany.tar": b"tar"}


def test_images_of_a_prefix_or_its_one_archive_become_a_data_folder(
    s3_store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_store.url)
    images = {f"{label}/{number}.png": b"%d" % number for label in CLASSES for number in range(3)}
    zip_file = io.BytesIO()
    with zipfile.ZipFile(zip_file, "w") as archive:
        for name, body in images.items():
            s3_store.put(f"set/xrays/{name}", body)
            archive.writestr(f"xrays/{name}", body)
    s3_store.put("set/xrays/notes.zip", b"ignored")
    s3_store.put("packed/clinic.zip", zip_file.getvalue())
    s3_store.put("packed/readme.txt", b"ignored")
    for prefix, name in (("set", "set"), ("packed", "clinic")):
        (tmp_path / prefix).mkdir()
        source = f"s3://{s3_store.bucket}/{prefix}"
        card = fetch_images(source, tmp_path / prefix, downloads=tmp_path / "downloads")
        assert (card.name, card.source, card.images) == (name, source, 6)
        for path, body in images.items():
            assert (tmp_path / prefix / path).read_bytes() == body
    assert not {"set/xrays/notes.zip", "packed/readme.txt"} & s3_store.ranges.keys()


def test_several_archives_below_a_prefix_are_ambiguous(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("packed/a.zip")
    s3_store.put("packed/b.tar")
    source = f"s3://{s3_store.bucket}/packed"
    assert "expected one archive" in error_message(
        lambda: fetch_images(source, tmp_path, downloads=tmp_path, endpoint_url=s3_store.url)
    )


def test_objects_on_all_pages_of_the_listing_are_found(
    s3_store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "4")
    for number in range(10):
        s3_store.put(f"many/{number}")
    assert len(s3_store.open("many", tmp_path).entries) == 10
    assert s3_store.pages == 3


def test_the_endpoint_is_also_taken_from_the_environment(
    s3_store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_store.put("set/a.png")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_store.url)
    assert len(ObjectStoreContents(f"s3://{s3_store.bucket}/set", tmp_path).entries) == 1


def test_complete_files_are_not_downloaded_again_unless_they_changed(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/a.png", b"old")
    s3_store.put("set/b.png", b"same")
    read_all(s3_store.open("set", tmp_path))
    s3_store.put("set/a.png", b"new")
    assert read_all(s3_store.open("set", tmp_path)) == {"a.png": b"new", "b.png": b"same"}
    assert {key: len(ranges) for key, ranges in s3_store.ranges.items()} == {"set/a.png": 2, "set/b.png": 1}
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 2


def test_an_interrupted_transfer_is_resumed(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/big.tar", BIG)
    s3_store.cut = ["set/big.tar"]
    assert read_all(s3_store.open("set", tmp_path)) == {"big.tar": BIG}
    assert s3_store.ranges["set/big.tar"] == ["all", f"bytes={HALF}-"]


def test_a_transfer_that_is_always_interrupted_keeps_its_bytes(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/big.tar", BIG)
    s3_store.cut = ["set/big.tar"] * MAX_ATTEMPTS
    received = len(BIG) - len(BIG) // 2**MAX_ATTEMPTS
    text = error_message(lambda: read_all(s3_store.open("set", tmp_path)))
    assert f"expected {len(BIG):,} bytes of 'set/big.tar'" in text
    assert f"ended after {received:,} bytes" in text or "a connection that broke" in text
    assert read_all(s3_store.open("set", tmp_path)) == {"big.tar": BIG}
    assert s3_store.ranges["set/big.tar"][-1] == f"bytes={received}-"


def test_a_killed_download_is_resumed(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/big.tar", BIG)
    s3_store.paused = {"set/big.tar"}
    code = (
        "import sys; from pathlib import Path; from cxr.storage.object_store import ObjectStoreContents; "
        "contents = ObjectStoreContents(sys.argv[1], Path(sys.argv[2]), endpoint_url=sys.argv[3]); "
        "contents.download([file.path for file in contents.entries])"
    )
    command = [sys.executable, "-c", code, f"s3://{s3_store.bucket}/set", str(tmp_path), s3_store.url]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while sum(path.stat().st_size for path in tmp_path.rglob("*.part")) < HALF and process.poll() is None:
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    s3_store.paused = set()
    assert read_all(s3_store.open("set", tmp_path)) == {"big.tar": BIG}
    assert s3_store.ranges["set/big.tar"][-1] == f"bytes={HALF}-"


def test_altered_content_is_found_by_its_checksum(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/a.png", b"image")
    s3_store.altered = {"set/a.png"}
    contents = s3_store.open("set", tmp_path)
    for load in (lambda: read_all(contents), lambda: contents.content(PurePosixPath("a.png"), 100)):
        s3_store.ranges.clear()
        text = error_message(load)
        assert "5 bytes of 'set/a.png'" in text and "other bytes than were listed" in text
        assert "endpoint" not in text
        assert len(s3_store.ranges["set/a.png"]) == MAX_ATTEMPTS
    s3_store.altered = set()
    assert read_all(s3_store.open("set", tmp_path)) == {"a.png": b"image"}


def test_damaged_refused_and_broken_transfers_are_tried_again(s3_store: S3Server, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed={seed}\n")
    generator = random.Random(seed)
    images = {f"{number:02d}.png": generator.randbytes(generator.randrange(1, 3000)) for number in range(40)}
    kinds, weights = (DAMAGED, OVERLOADED, BROKEN, "none"), (0.3, 0.1, 0.1, 0.5)
    disturbances: dict[str, list[str]] = {}
    for name, body in images.items():
        s3_store.put(f"set/{name}", body)
        disturbances[f"set/{name}"] = [*generator.choices(kinds, weights, k=MAX_ATTEMPTS - 1), "none"]
    contents = s3_store.open("set", tmp_path)
    s3_store.disturbances = {key: list(kinds) for key, kinds in disturbances.items()}
    with ThreadPoolExecutor(16) as pool:
        bodies = list(pool.map(lambda name: contents.content(PurePosixPath(name), 3000), images))
    assert bodies == list(images.values())
    assert sum(map(len, s3_store.ranges.values())) > len(images), "some objects were requested again"
    s3_store.disturbances = disturbances
    assert read_all(contents) == images


def test_an_overloaded_store_is_named_and_not_a_wrong_address(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/a.png")
    s3_store.disturbances["set/a.png"] = MAX_ATTEMPTS * [OVERLOADED]
    contents = s3_store.open("set", tmp_path)
    with pytest.raises(TransferError, match=r"HTTP status 503 \(SlowDown\) in each of 5 tries"):
        contents.content(PurePosixPath("a.png"), 100)
    assert contents.content(PurePosixPath("a.png"), 100) == b"image"


def test_keys_cannot_lead_out_of_the_folder(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/../../NORMAL/a.png")
    text = error_message(lambda: s3_store.open("set", tmp_path))
    assert "with 'set/../../NORMAL/a.png'; rename it" in text


def test_keys_with_repeated_slashes_are_read(s3_store: S3Server, tmp_path: Path) -> None:
    for number, key in enumerate(("set//a.png", "set/ward//b.png", "set/./c.png", "set/ward///", "/set/d.png")):
        s3_store.put(key, b"" if key.endswith("/") else b"%d" % number)
    assert read_all(s3_store.open("set", tmp_path)) == {"a.png": b"0", "ward/b.png": b"1", "c.png": b"2"}
    assert read_all(s3_store.open("set//", tmp_path)) == read_all(s3_store.open("set", tmp_path))
    assert read_all(s3_store.open("/set", tmp_path)) == {"d.png": b"4"}
    assert "set/d.png" in read_all(ObjectStoreContents(f"s3://{s3_store.bucket}", tmp_path, endpoint_url=s3_store.url))


def test_keys_that_become_one_path_are_named(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("twice/ward/a.png")
    s3_store.put("twice/ward//a.png")
    text = error_message(lambda: s3_store.open("twice", tmp_path))
    assert "'twice/ward//a.png'" in text and "'twice/ward/a.png'" in text and "rename one of them" in text


def test_the_content_of_a_key_that_marks_a_folder_is_left_out_with_a_warning(
    s3_store: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s3_store.put("full/ward/", b"content of what looks like a folder")
    s3_store.put("full/other/", b"")
    s3_store.put("full/ward/a.png")
    assert read_all(s3_store.open("full", tmp_path)) == {"ward/a.png": b"image"}
    assert [record.getMessage() for record in caplog.records if record.name.startswith("cxr")] == [
        f"s3://{s3_store.bucket}/full: left out 'full/ward/' with 35 bytes: a key that ends with a slash marks a folder"
    ]


def test_first_bytes_are_requested_as_a_range_once_per_object(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/big", BIG)
    s3_store.put("set/small", b"abc")
    s3_store.put("set/empty", b"")
    s3_store.put("set/other.png", b"x")
    contents = s3_store.open("set", tmp_path)
    heads = contents.read_heads([PurePosixPath(name) for name in ("big", "small", "empty")])
    assert {str(path): head for path, head in heads.items()} == {"big": BIG[:HEAD_BYTES], "small": b"abc", "empty": b""}
    head_range = f"bytes=0-{HEAD_BYTES - 1}"
    assert s3_store.ranges == {"set/big": [head_range], "set/small": [head_range]}
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_changes_after_the_listing_is_named(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/a.png", b"old")
    contents = s3_store.open("set", tmp_path)
    s3_store.put("set/a.png", b"new")
    text = error_message(lambda: read_all(contents))
    assert "expected 'set/a.png' as it was listed" in text and "run the same command again" in text
    with pytest.raises(FileNotFoundError, match="changed since it was listed"):
        contents.content(PurePosixPath("a.png"), 100)


def test_first_bytes_of_an_object_that_changed_are_unknown(s3_store: S3Server, tmp_path: Path) -> None:
    s3_store.put("set/changed", b"old")
    s3_store.put("set/whole", b"same")
    contents = s3_store.open("set", tmp_path)
    s3_store.put("set/changed", b"new")
    heads = contents.read_heads([PurePosixPath("changed"), PurePosixPath("whole")])
    assert heads == {PurePosixPath("whole"): b"same"}


def test_images_without_an_ending_become_a_data_folder(s3_store: S3Server, tmp_path: Path) -> None:
    radiograph = dicom_file(draw_12_bits(), BitsStored=12)
    for label in CLASSES:
        s3_store.put(f"set/{label}/IM1", radiograph)
        s3_store.put(f"set/{label}/notes", b"text")
    s3_store.put("set/notes.zip", b"ignored")
    (tmp_path / "data").mkdir()
    source = f"s3://{s3_store.bucket}/set"
    card = fetch_images(source, tmp_path / "data", downloads=tmp_path / "downloads", endpoint_url=s3_store.url)
    assert card.images == 2
    assert {path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*/*")} == {
        f"{label}/IM1" for label in CLASSES
    }


def test_public_buckets_need_no_credentials(
    s3_store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_store.put("set/a.png")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert len(s3_store.open("set", tmp_path).entries) == 1


def test_missing_credentials_are_named(s3_store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_store.public = False
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "AWS_SECRET_ACCESS_KEY" in error_message(lambda: s3_store.open("set", tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    text = error_message(lambda: s3_store.open("set", tmp_path))
    assert "not public" in text
    assert "AWS_ACCESS_KEY_ID" in text


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        ("AccessDenied", "s3:ListBucket"),
        ("InvalidAccessKeyId", "credentials that the store knows"),
        ("SignatureDoesNotMatch", "credentials that the store knows"),
        ("InvalidObjectState", "InvalidObjectState"),
    ],
)
def test_refusals_say_what_to_do(s3_store: S3Server, tmp_path: Path, refusal: str, expected: str) -> None:
    s3_store.refusal = refusal
    assert expected in error_message(lambda: s3_store.open("set", tmp_path))


def test_an_unknown_bucket_and_an_empty_prefix_are_named(s3_store: S3Server, tmp_path: Path) -> None:
    text = error_message(lambda: ObjectStoreContents("s3://no-such-bucket/x", tmp_path, endpoint_url=s3_store.url))
    assert "expected a bucket that exists, received source=s3://no-such-bucket/x" in text
    assert "with none" in error_message(lambda: s3_store.open("nothing", tmp_path))


@pytest.mark.parametrize(
    ("url", "endpoint", "expected"),
    [
        ("s3://bucket/x", "http://127.0.0.1:9", "no network, or a wrong endpoint_url"),
        ("s3://bucket/x", "nonsense", "endpoint_url"),
        ("s3://", "http://127.0.0.1:9", "expected s3://bucket/prefix, received source=s3://"),
        ("s3://bad bucket/x", "http://127.0.0.1:9", "correct the bucket's name"),
    ],
)
def test_wrong_addresses_are_explained(tmp_path: Path, url: str, endpoint: str, expected: str) -> None:
    assert expected in error_message(lambda: ObjectStoreContents(url, tmp_path, endpoint_url=endpoint))

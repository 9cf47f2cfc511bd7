"""Archives: damaged, unsafe and oversized ones are refused before anything is written."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from cxr.data.fetching.archives import open_archive
from cxr.errors import SourceError

LIMIT = 1_000_000
FILES = {"set/NORMAL/a.png": b"a" * 700, "set/PNEUMONIA/b.png": b"b" * 3000}


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w", *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
        for member in extra:
            tar.addfile(member)
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return path


def link_member(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


def read_files(path: Path) -> dict[str, bytes]:
    archive = open_archive(path, max_bytes=LIMIT)
    requested = {entry.path for entry in archive.entries}
    return {str(entry.path): b"".join(pieces) for entry, pieces in archive.read(requested)}


def refusal(path: Path, limit: int = LIMIT) -> str:
    with pytest.raises(SourceError) as caught:
        open_archive(path, max_bytes=limit)
    return str(caught.value)


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tgz", "w:gz"), ("x.bz2", "w:bz2"), ("x", "w:xz")])
def test_tars_are_recognised_by_their_first_bytes(tmp_path: Path, name: str, mode: str) -> None:
    assert read_files(write_tar(tmp_path / name, FILES, mode)) == FILES


def test_zips_are_read_also_with_backslashes_in_names(tmp_path: Path) -> None:
    assert read_files(write_zip(tmp_path / "x.zip", FILES)) == FILES
    backslashes = {name.replace("/", "\\"): body for name, body in FILES.items()}
    assert read_files(write_zip(tmp_path / "y.zip", backslashes)) == FILES


def test_only_requested_files_are_read(tmp_path: Path) -> None:
    requested = [PurePosixPath("set/PNEUMONIA/b.png")]
    for path in (write_tar(tmp_path / "x.tar", FILES), write_zip(tmp_path / "x.zip", FILES)):
        archive = open_archive(path, max_bytes=LIMIT)
        assert [(entry.path, sum(map(len, pieces))) for entry, pieces in archive.read(requested)] == [
            (*requested, 3000)
        ]


@pytest.mark.parametrize("keep", [512 + 100, 512 + 1024, 512 + 1024 + 300, 512 + 1024 + 512 + 3072])
def test_a_tar_cut_anywhere_is_refused(tmp_path: Path, keep: int) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    path.write_bytes(path.read_bytes()[:keep])
    assert "truncated" in refusal(path)


def test_a_tar_with_a_damaged_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    body = bytearray(path.read_bytes())
    body[512 + 1024 + 10] ^= 0xFF
    path.write_bytes(body)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_compressed_archives_that_are_cut_are_refused(tmp_path: Path, share: float) -> None:
    noise = {name: bytes(range(256)) * 20 for name in FILES}
    for path in (write_tar(tmp_path / "x.tgz", noise, "w:gz"), write_zip(tmp_path / "x.zip", noise)):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "truncated, damaged" in refusal(path)


def test_a_zip_with_damaged_bytes_is_found_while_it_is_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    body = bytearray(path.read_bytes())
    body[50] ^= 0xFF
    path.write_bytes(body)
    with pytest.raises(SourceError, match="damaged"):
        read_files(path)


@pytest.mark.parametrize("name", ["../NORMAL/a.png", "set/../../a.png", "/NORMAL/a.png", "C:/NORMAL/a.png"])
def test_members_that_lead_out_of_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    files = {**FILES, name: b"x"}
    assert f"'{name}'" in refusal(write_tar(tmp_path / "x.tar", files))
    assert f"'{name}'" in refusal(write_zip(tmp_path / "x.zip", files))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = write_tar(tmp_path / "x.tar", FILES, "w", link_member("set/NORMAL/c.png", "/etc/hostname", kind))
    assert "set/NORMAL/c.png" in refusal(path)


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    member = zipfile.ZipInfo("set/NORMAL/c.png")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, "/etc/hostname")
    assert "set/NORMAL/c.png" in refusal(path)


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    body = bytearray(path.read_bytes())
    body[body.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(body)
    assert "without a password" in refusal(path)


def test_archives_that_unpack_to_too_much_are_refused(tmp_path: Path) -> None:
    bomb = {"set/NORMAL/a.png": bytes(2 * LIMIT)}
    for path in (write_tar(tmp_path / "x.tgz", bomb, "w:gz"), write_zip(tmp_path / "x.zip", bomb)):
        assert path.stat().st_size < LIMIT / 100
        assert "max_gigabytes=0.001" in refusal(path)


def test_a_file_that_is_not_an_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not an archive")
    assert "received source=notes.txt, a file that is neither" in refusal(path)
    path.rename(tmp_path / "x.tar")
    assert "received source=x.tar" in refusal(tmp_path / "x.tar")
    (tmp_path / "x.zip").write_bytes(b"")
    assert "received source=x.zip" in refusal(tmp_path / "x.zip")


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (6, "Implode"), (93, "Zstandard"), (77, "unknown")])
def test_a_zip_that_is_compressed_in_another_way_is_named_with_the_way_out(
    tmp_path: Path, method: int, name: str
) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    body = bytearray(path.read_bytes())
    for start, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        position = body.index(start) + offset
        body[position : position + 2] = method.to_bytes(2, "little")
    path.write_bytes(body)
    text = refusal(path)
    assert f"received source=x.zip with 'set/NORMAL/a.png' compressed with {name} (method {method})" in text
    assert "`7z x FILE`" in text and "download it again" not in text


def test_a_zip_with_lzma_or_bzip2_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for (name, body), method in zip(FILES.items(), (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2), strict=True):
            archive.writestr(name, body, method)
    assert read_files(tmp_path / "x.zip") == FILES


def test_parts_of_a_split_zip_are_told_from_damaged_zips(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "x.zip", {name: bytes(range(256)) * 20 for name in FILES}).read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    last_part = whole[: end + 4] + b"\1\0\1\0" + whole[end + 8 :]
    for name, content in {
        "x.z01": b"PK\x07\x08" + whole[:200],
        "x.zip.001": whole[:200],
        "last.zip": last_part,
    }.items():
        (tmp_path / name).write_bytes(content)
        text = refusal(tmp_path / name)
        assert f"received source={name}, one of several parts" in text
        assert "put all parts into one folder" in text


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.zip", b"\n<!DOCTYPE html><title>Sign in</title>", "a web page that was saved in its place"),
        ("x.tar.gz", b"<html>\n" + b" " * 2000, "a web page that was saved in its place"),
        ("x.7z", b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive; unpack it"),
        ("x.zip", b"Rar!\x1a\x07\x01\0" + bytes(100), "a RAR archive; unpack it"),
        ("x.tar.zst", b"\x28\xb5\x2f\xfd" + bytes(100), "compressed with Zstandard; unpack it"),
        ("x.zip", b"", "an empty file; copy or download it again"),
    ],
)
def test_what_is_given_in_place_of_an_archive_is_named(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    text = refusal(tmp_path / name)
    assert f"received source={name}" in text
    assert sentence in text


def test_a_zip_with_a_name_that_is_not_the_utf_8_it_claims_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"NORMAL/r\u00f6.png": b"a"})
    path.write_bytes(path.read_bytes().replace("\u00f6".encode(), b"\xf6\xf6"))
    assert r"with 'NORMAL/r\xf6\xf6.png'; rename the file" in refusal(path)

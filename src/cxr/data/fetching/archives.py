"""Reads tar and zip files; unsafe, damaged and oversized ones are refused."""

from __future__ import annotations

import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from tqdm import tqdm

from cxr.errors import SourceError
from cxr.images.file_types import HEAD_BYTES, is_named_as_image
from cxr.storage.contents import (
    GIGABYTE,
    SourceContents,
    SourceFile,
    read_chunks,
    refuse_members,
    safe_path,
    shorten_list,
    translate_read_errors,
)

TAR_BLOCK = 512
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")

_ZIP_METHODS = {
    1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 96: "JPEG", 97: "WavPack", 98: "PPMd",
}  # fmt: skip
"""Compression methods of zip files (APPNOTE.TXT, 4.4.5) that Python does not read."""
_READ_ZIP_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
_ENCRYPTED = 1
_UNPACK = "unpack it, for example with 7-Zip or `7z x FILE`, and give the folder"
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"PK00PK\x03\x04")
_COMPRESSED_TAR_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_OTHER_CONTENTS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a file compressed with Zstandard",
}
_ZIP_END, _ZIP_END_BYTES, _MAX_ZIP_COMMENT = b"PK\x05\x06", 22, 0xFFFF


class TarContents(SourceContents):
    """A tar file, plain or compressed with gzip, bzip2 or xz."""

    def __init__(self, path: Path, name: str | None = None, *, max_bytes: int) -> None:
        """List a tar file to its end mark.

        Args:
            path: the tar file.
            name: name for messages; None for the file's name.
            max_bytes: declared total size above which the archive is refused, checked before each file is
                decompressed.

        Raises:
            SourceError: if it is truncated, damaged or too large, or holds links, devices or unsafe paths.
        """
        self._path = path
        self.name = name or path.name
        entries: list[SourceFile] = []
        unsafe_members: list[str] = []
        self._heads: dict[PurePosixPath, bytes] = {}
        total = 0
        with translate_read_errors(self.name), tarfile.open(path, "r:*") as tar:
            # A compressed archive is decompressed for its listing, which can take a while.
            for member in tqdm(tar, f"list {self.name}", unit=" files", delay=1, leave=False, disable=None):
                total += TAR_BLOCK + member.size
                _expect_within_limit(self.name, total, max_bytes)
                relative = safe_path(member.name)
                if relative is None or not (member.isreg() or member.isdir()):
                    unsafe_members.append(f"{member.name} -> {member.linkname}" if member.linkname else member.name)
                elif member.isreg():
                    entries.append(SourceFile(relative, member.size))
                    stream = None if is_named_as_image(relative) else tar.extractfile(member)
                    if stream is not None:  # read on the way: another pass would decompress all again
                        self._heads[relative] = stream.read(HEAD_BYTES)
            _expect_end_mark(tar, self.name)
        _refuse_members(self.name, unsafe_members)
        self.entries = tuple(entries)

    def read(self, paths: Collection[PurePosixPath]) -> Iterator[tuple[SourceFile, Iterator[bytes]]]:
        """Stream the requested files in one pass, in the order of the archive."""
        with translate_read_errors(self.name), tarfile.open(self._path, "r:*") as tar:
            for member in tar:
                relative = safe_path(member.name)
                stream = tar.extractfile(member) if member.isreg() and relative in paths else None
                if stream is not None and relative is not None:
                    entry = SourceFile(relative, member.size)
                    yield entry, read_chunks(entry, stream, self.name)

    def read_heads(self, paths: Collection[PurePosixPath]) -> Mapping[PurePosixPath, bytes]:
        """Give the first bytes of files whose names do not say whether they are images; the listing has read them."""
        return {path: self._heads[path] for path in paths}


class ZipContents(SourceContents):
    """A zip file; backslashes in its names, as some Windows tools write them, are read as slashes."""

    def __init__(self, path: Path, name: str | None = None, *, max_bytes: int) -> None:
        """List a zip file.

        Args:
            path: the zip file.
            name: name for messages; None for the file's name.
            max_bytes: declared total size above which the archive is refused.

        Raises:
            SourceError: if it is truncated, damaged, encrypted, too large, one of several parts, or compressed in a
                way that is not read, or if it holds links or unsafe paths.
        """
        self._path = path
        self.name = name or path.name
        entries: list[SourceFile] = []
        unsafe_members: list[str] = []
        _refuse_part_of_zip(path, self.name)
        try:
            with translate_read_errors(self.name), zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except UnicodeDecodeError as error:
            raise SourceError(
                f"expected names in UTF-8, received source={self.name} with "
                f"{shorten_list([os.fsdecode(error.object)])}; rename the file and pack the zip again, or "
                f"{_UNPACK}"
            ) from error
        _expect_within_limit(self.name, sum(member.file_size for member in members), max_bytes)
        for member in members:
            relative = _zip_path(member)
            if relative is None or stat.S_ISLNK(member.external_attr >> 16):
                unsafe_members.append(member.filename)
            elif member.flag_bits & _ENCRYPTED:
                raise SourceError(
                    f"expected a zip without a password, received source={self.name} with "
                    f"{member.filename!r} encrypted; {_UNPACK}"
                )
            elif member.compress_type not in _READ_ZIP_METHODS:
                method = _ZIP_METHODS.get(member.compress_type, "unknown")
                raise SourceError(
                    f"expected a zip compressed with Deflate, BZip2, LZMA or not at all, received source={self.name} "
                    f"with {member.filename!r} compressed with {method} (method {member.compress_type}); {_UNPACK}"
                )
            elif not member.is_dir():
                entries.append(SourceFile(relative, member.file_size))
        _refuse_members(self.name, unsafe_members)
        self.entries = tuple(entries)

    def read(self, paths: Collection[PurePosixPath]) -> Iterator[tuple[SourceFile, Iterator[bytes]]]:
        """Stream the requested files in the order of the archive; each is checked against its CRC."""
        with translate_read_errors(self.name), zipfile.ZipFile(self._path) as archive:
            for member in archive.infolist():
                relative = _zip_path(member)
                if relative in paths and relative is not None and not member.is_dir():
                    entry = SourceFile(relative, member.file_size)
                    with archive.open(member) as stream:
                        yield entry, read_chunks(entry, stream, self.name)

    def read_heads(self, paths: Collection[PurePosixPath]) -> Mapping[PurePosixPath, bytes]:
        """Read the first bytes of files."""
        heads: dict[PurePosixPath, bytes] = {}
        with translate_read_errors(self.name), zipfile.ZipFile(self._path) as archive:
            for member in archive.infolist() if paths else ():
                relative = _zip_path(member)
                if relative in paths and relative is not None and not member.is_dir():
                    with archive.open(member) as stream:
                        heads[relative] = stream.read(HEAD_BYTES)
        return heads


def open_archive(path: Path, name: str | None = None, *, max_bytes: int) -> SourceContents:
    """List an archive; its first bytes tell its format, not its name.

    Args:
        path: a tar (plain, gzip, bzip2, xz) or zip file.
        name: name for messages; None for the file's name.
        max_bytes: declared total size above which the archive is refused, in bytes.

    Returns:
        Its contents.

    Raises:
        SourceError: if it is not an archive, or a damaged or unsafe one.
    """
    name = name or path.name
    try:
        with path.open("rb") as stream:
            head = stream.read(TAR_BLOCK)
    except OSError as error:
        raise SourceError(
            f"expected a readable archive, received source={name}: {error.strerror}; check its permissions"
        ) from error
    if head.startswith(_ZIP_STARTS):
        return ZipContents(path, name, max_bytes=max_bytes)
    is_tar = head.startswith(_COMPRESSED_TAR_STARTS) or head[257:262] == b"ustar"
    content = "" if is_tar else _describe_other_content(head)
    if not content and (is_tar or is_archive(path.name)):
        return TarContents(path, name, max_bytes=max_bytes)
    raise SourceError(
        f"expected a folder or an archive ({', '.join(ARCHIVE_SUFFIXES)}), received source={name}, "
        f"{content or 'a file that is neither; give the folder or the archive that holds the images'}"
    )


def is_archive(name: str) -> bool:
    """Tell whether a name is that of an archive.

    Args:
        name: a file name or key.

    Returns:
        Whether it ends like one of :data:`ARCHIVE_SUFFIXES`.
    """
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def _describe_other_content(head: bytes) -> str:
    """Say what a file is that is often given in place of an archive, and what to do; empty for any other."""
    if not head:
        return "an empty file; copy or download it again"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return (
            "a web page that was saved in its place, perhaps one that asks for a login; open the address in a browser "
            "and download the archive again"
        )
    content = next((content for start, content in _OTHER_CONTENTS.items() if head.startswith(start)), "")
    return f"{content}; {_UNPACK}" if content else ""


def _refuse_part_of_zip(path: Path, name: str) -> None:
    """Refuse one file of a zip that was split into several: its list of files lies in the last one."""
    with translate_read_errors(name), path.open("rb") as stream:
        starts_as_part = stream.read(4) == b"PK\x07\x08"
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _ZIP_END_BYTES - _MAX_ZIP_COMMENT))
        tail = stream.read()
    end = tail.rfind(_ZIP_END)
    disk = int.from_bytes(tail[end + 4 : end + 6], "little") if end >= 0 else 0
    is_numbered = re.search(r"\.(z\d\d|\d{3})$", path.name.lower()) is not None
    # 0xFFFF says that the number stands in the fields of Zip64, which zipfile checks itself.
    if disk not in (0, 0xFFFF) or (end < 0 and (starts_as_part or is_numbered)):
        raise SourceError(
            f"expected a whole zip, received source={name}, one of several parts (.z01, .z02 ..., .zip, or .001, .002 "
            "...); put all parts into one folder, unpack the .zip or the .001 with 7-Zip or `7z x FILE`, and give the "
            "folder"
        )


def _zip_path(member: zipfile.ZipInfo) -> PurePosixPath | None:
    return safe_path(member.filename.replace("\\", "/"))


def _expect_end_mark(tar: tarfile.TarFile, name: str) -> None:
    """Refuse a tar without its end mark, a block of zeros: tarfile takes a damaged header for the end of the file."""
    stream = cast(BinaryIO, tar.fileobj)
    stream.seek(tar.offset)
    if stream.read(TAR_BLOCK) != bytes(TAR_BLOCK):
        raise SourceError(
            f"expected a whole tar file, received source={name}, which is truncated or damaged after byte "
            f"{tar.offset:,}; copy or download it again"
        )


def _expect_within_limit(name: str, total: int, limit: int) -> None:
    if total > limit:
        raise SourceError(
            f"expected at most max_gigabytes={limit / GIGABYTE:g} after unpacking, received source={name} "
            f"that declares {total / GIGABYTE:,.1f} GB or more; raise max_gigabytes if that is right"
        )


def _refuse_members(name: str, refused: list[str]) -> None:
    refuse_members(name, "plain files and folders with relative paths", refused, "pack the archive again without them")

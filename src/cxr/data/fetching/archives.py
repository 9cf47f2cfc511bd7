"""Reads tar and zip files; unsafe, damaged and oversized ones are refused."""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from tqdm import tqdm

from cxr.errors import SourceError
from cxr.storage.contents import (
    GIGABYTE,
    SourceContents,
    SourceFile,
    read_chunks,
    refuse_members,
    safe_path,
    translate_read_errors,
)

TAR_BLOCK = 512
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


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


class ZipContents(SourceContents):
    """A zip file; backslashes in its names, as some Windows tools write them, are read as slashes."""

    def __init__(self, path: Path, name: str | None = None, *, max_bytes: int) -> None:
        """List a zip file.

        Args:
            path: the zip file.
            name: name for messages; None for the file's name.
            max_bytes: declared total size above which the archive is refused.

        Raises:
            SourceError: if it is truncated, damaged, encrypted or too large, or holds links or unsafe paths.
        """
        self._path = path
        self.name = name or path.name
        entries: list[SourceFile] = []
        unsafe_members: list[str] = []
        with translate_read_errors(self.name), zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        _expect_within_limit(self.name, sum(member.file_size for member in members), max_bytes)
        for member in members:
            relative = _zip_path(member)
            if relative is None or stat.S_ISLNK(member.external_attr >> 16):
                unsafe_members.append(member.filename)
            elif member.flag_bits & 1:
                raise SourceError(
                    f"expected a zip without a password, received source={self.name} with "
                    f"{member.filename!r} encrypted; unpack it and give the folder"
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
        raise SourceError(f"expected a readable archive, received source={name}: {error}") from error
    if head.startswith(b"PK"):
        return ZipContents(path, name, max_bytes=max_bytes)
    is_tar = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar"
    if is_tar or is_archive(path.name):
        return TarContents(path, name, max_bytes=max_bytes)
    raise SourceError(
        f"expected a folder or an archive ({', '.join(ARCHIVE_SUFFIXES)}), received source={name}, a file "
        "that is neither; give the folder or the archive that holds the images"
    )


def is_archive(name: str) -> bool:
    """Tell whether a name is that of an archive.

    Args:
        name: a file name or key.

    Returns:
        Whether it ends like one of :data:`ARCHIVE_SUFFIXES`.
    """
    return name.lower().endswith(ARCHIVE_SUFFIXES)


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

"""The files of a data source: first listed, then read. Here for folders; other packages add archives and S3."""

from __future__ import annotations

import lzma
import os
import re
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from cxr.errors import SourceError
from cxr.files import printable_name
from cxr.images.file_types import HEAD_BYTES

GIGABYTE = 1_000_000_000
CHUNK_BYTES = 1 << 20

Content = TypeVar("Content")

_READ_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)
"""Errors of the readers on truncated or altered archives (for a damaged gzip it is an OSError)."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: path inside the source, relative and free of ``..``.
        bytes: its size, as the source declares it.
    """

    path: PurePosixPath
    bytes: int


class SourceContents(ABC):
    """The files of a source. ``entries`` needs only a listing; ``read`` transfers the bytes.

    Attributes:
        name: short name for messages and for the data card, without folders of a machine.
        entries: all regular files.
        hidden_folders: folders that were not entered, because they are hidden.
    """

    name: str
    entries: tuple[SourceFile, ...]
    hidden_folders: tuple[PurePosixPath, ...] = ()

    @abstractmethod
    def read(self, paths: Collection[PurePosixPath]) -> Iterator[tuple[SourceFile, Iterator[bytes]]]:
        """Open files one after the other, in the order that is fastest for the source.

        Args:
            paths: paths of :attr:`entries`.

        Yields:
            Each file with its bytes in chunks. The chunks must be consumed before the next file is requested. They
            raise SourceError if they are fewer or more than declared, or cannot be read.

        Raises:
            SourceError: if the source cannot be read.
        """

    def read_whole(self, paths: Collection[PurePosixPath]) -> Iterator[tuple[SourceFile, bytes]]:
        """Load files into memory one after the other; nothing of them stays on disk where the source allows it.

        Args:
            paths: paths of :attr:`entries`.

        Yields:
            Each file with its content, in the order that is fastest for the source.

        Raises:
            SourceError: if the source cannot be read.
        """
        for file, pieces in self.read(paths):
            yield file, b"".join(pieces)

    def address(self, path: PurePosixPath) -> str | None:
        """Tell where a file can be read without this source.

        Args:
            path: path of one of :attr:`entries`.

        Returns:
            ``s3://bucket/key`` or ``file:///folder/name``; None if it cannot, as inside of an archive.
        """
        return None

    @abstractmethod
    def read_heads(self, paths: Collection[PurePosixPath]) -> Mapping[PurePosixPath, bytes]:
        """Read the first bytes of files, in the cheapest way for the source.

        Args:
            paths: paths of :attr:`entries`.

        Returns:
            The first :data:`cxr.images.file_types.HEAD_BYTES` bytes of each file, or all if it has fewer.

        Raises:
            SourceError: if the source cannot be read.
        """


class FolderContents(SourceContents):
    """A folder on this machine. Links that lead out of it are refused, links inside it are followed."""

    def __init__(self, folder: Path, name: str | None = None, *, follow_links: bool = False) -> None:
        """List a folder.

        Args:
            folder: the folder, which may itself be a link.
            name: name for messages; None for the last part of the path.
            follow_links: whether links to files may lead anywhere, as in a folder that DVC has linked.

        Raises:
            SourceError: if a link leads out of the folder or to nothing, or if something cannot be read.
        """
        self._folder = folder.resolve()
        self.name = name or self._folder.name
        files: list[SourceFile] = []
        unsafe_links: list[str] = []
        hidden_folders: list[PurePosixPath] = []
        with translate_read_errors(self.name):
            for path, relative in _walk(self._folder, hidden_folders):
                if path.is_symlink() and not follow_links and self._is_unsafe(path):
                    unsafe_links.append(f"{relative} -> {path.readlink()}")
                elif path.is_file():
                    files.append(SourceFile(relative, path.stat().st_size))
        refuse_members(self.name, "links to files inside it", unsafe_links, "replace them by the files themselves")
        self.entries, self.hidden_folders = tuple(files), tuple(hidden_folders)

    def _is_unsafe(self, link: Path) -> bool:
        target = link.resolve()
        return not (target.is_file() and target.is_relative_to(self._folder))

    def read(self, paths: Collection[PurePosixPath]) -> Iterator[tuple[SourceFile, Iterator[bytes]]]:
        """Open files in the order of the listing."""
        for file in self.entries:
            if file.path in paths:
                with translate_read_errors(self.name), (self._folder / file.path).open("rb") as stream:
                    yield file, read_chunks(file, stream, self.name)

    def read_heads(self, paths: Collection[PurePosixPath]) -> Mapping[PurePosixPath, bytes]:
        """Read the first bytes of files."""
        with translate_read_errors(self.name):
            return {path: read_head(self._folder / path) for path in paths}

    def address(self, path: PurePosixPath) -> str:
        """Address of a file on this machine; a link gives that of its target."""
        return (self._folder / path).resolve().as_uri()


def read_head(path: Path) -> bytes:
    """Read the first bytes of a regular file.

    Args:
        path: the file, or a link to it.

    Returns:
        The first :data:`cxr.images.file_types.HEAD_BYTES` bytes, or all if it has fewer.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def read_chunks(file: SourceFile, stream: IO[bytes], name: str) -> Iterator[bytes]:
    """Read one file to its declared end.

    Args:
        file: the file with its declared size.
        stream: its bytes.
        name: name of the source, for messages.

    Yields:
        Chunks of at most one mebibyte.

    Raises:
        SourceError: if the file is shorter or longer than declared, or cannot be read.
    """
    missing = file.bytes
    while True:
        with translate_read_errors(name):
            chunk = stream.read(CHUNK_BYTES)
        missing -= len(chunk)
        if missing < 0 or (not chunk and missing):
            raise SourceError(
                f"expected {file.bytes:,} bytes in {str(file.path)!r}, received source={name} with "
                f"{'more' if missing < 0 else f'{file.bytes - missing:,}'}; copy or download it again"
            )
        if not chunk:
            return
        yield chunk


def each_once(
    files: Iterable[tuple[SourceFile, Content]], expected: Iterable[PurePosixPath], name: str
) -> Iterator[tuple[SourceFile, Content]]:
    """Pass on the files of a source, and refuse a source that brings one twice or not at all.

    Args:
        files: files with their contents.
        expected: their paths.
        name: name of the source, for messages.

    Yields:
        The files.

    Raises:
        SourceError: if a file comes twice, or is missing at the end.
    """
    missing = set(expected)
    for file, content in files:
        if file.path not in missing:
            raise SourceError(
                f"expected {str(file.path)!r} once, received source={name} with it twice; unpack it, and give the "
                "folder"
            )
        missing.remove(file.path)
        yield file, content
    if missing:
        raise SourceError(
            f"expected all listed files, received source={name} without {shorten_list(sorted(missing))}; they were "
            "removed in the meantime: run the same command again"
        )


def safe_path(name: str) -> PurePosixPath | None:
    """Check the path of a member of an archive or bucket.

    Args:
        name: the path as the archive spells it, with slashes.

    Returns:
        The relative path, or None if it is absolute, contains ``..`` or is no valid path.
    """
    path = PurePosixPath(name)
    unsafe = path.is_absolute() or ".." in path.parts or "\0" in name or re.match(r"[A-Za-z]:", name)
    return None if unsafe else path


def shorten_list(names: Sequence[object], limit: int = 5) -> str:
    """Shorten a list of names for a message.

    Args:
        names: paths or names, which may contain any character.
        limit: largest number of names that are spelled out.

    Returns:
        The first names, quoted, and how many more there are.
    """
    quoted = ", ".join(f"'{printable_name(str(name))}'" for name in names[:limit])
    return f"{quoted} and {len(names) - limit:,} more" if len(names) > limit else quoted


def refuse_members(name: str, expected: str, members: Sequence[str], remedy: str) -> None:
    """Refuse a source because of some of its members.

    Args:
        name: name of the source.
        expected: what it may contain.
        members: members that are something else.
        remedy: what to do.

    Raises:
        SourceError: if there are any such members.
    """
    if members:
        raise SourceError(
            f"expected only {expected}, received source={name} that also holds {shorten_list(members)}; {remedy}"
        )


@contextmanager
def translate_read_errors(name: str) -> Iterator[None]:
    """Raise SourceError for a damaged source in place of the errors of the readers."""
    try:
        yield
    except PermissionError as error:
        raise SourceError(
            f"expected permission to read all of source={name}, received {error.strerror} for {error.filename}; change "
            "the permissions, or run the command as a user who has them"
        ) from error
    except (*_READ_ERRORS, NotImplementedError) as error:
        raise SourceError(
            f"expected a whole, readable source, received source={name}, which is truncated, damaged or "
            f"not readable ({error}); copy or download it again"
        ) from error


def _walk(folder: Path, hidden_folders: list[PurePosixPath]) -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield the files of a folder, sorted, and the links in it; linked and hidden folders are not entered."""
    for base, folders, files in os.walk(folder, onerror=_raise):
        parent = PurePosixPath(Path(base).relative_to(folder).as_posix())
        hidden_folders += [parent / name for name in sorted(folders) if name.startswith(".")]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted([*files, *(name for name in folders if Path(base, name).is_symlink())]):
            path = Path(base, name)
            yield path, PurePosixPath(path.relative_to(folder).as_posix())


def _raise(error: OSError) -> None:
    raise error

"""What a data source holds: files that are listed first and read afterwards, from a folder or an archive."""

from __future__ import annotations

import lzma
import os
import re
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from cxr.errors import SourceError

GIGABYTE = 1_000_000_000
CHUNK = 1 << 20

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)
"""What the readers raise on truncated or altered archives (a damaged gzip is an OSError)."""


@dataclass(frozen=True)
class Entry:
    """One file of a source.

    Attributes:
        path: path inside the source, relative and free of ``..``.
        bytes: its size, as the source declares it.
    """

    path: PurePosixPath
    bytes: int


class Contents(ABC):
    """Files of a source: ``entries`` costs a listing only, ``read`` moves the bytes.

    Attributes:
        name: short name for messages and for the data card; no machine's folders.
        entries: all regular files.
    """

    name: str
    entries: tuple[Entry, ...]

    @abstractmethod
    def read(self, wanted: Collection[PurePosixPath]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """Open the wanted files one after the other, in the order that is quickest for the source.

        Args:
            wanted: paths of :attr:`entries`.

        Yields:
            Each entry with its bytes in chunks, to be taken before the next entry is asked for. The chunks
            raise SourceError if they are fewer or more than declared, or cannot be read.

        Raises:
            SourceError: if the source cannot be read.
        """


class FolderContents(Contents):
    """A folder on this machine; links that lead out of it are refused, links inside it are read."""

    def __init__(self, folder: Path, name: str | None = None, *, follow_links: bool = False) -> None:
        """List a folder.

        Args:
            folder: the folder, which may itself be a link.
            name: name for messages; its last part by default.
            follow_links: whether links to files may lead anywhere, as in a folder that DVC has linked.

        Raises:
            SourceError: if a link leads out of the folder or nowhere, or something cannot be read.
        """
        self._folder = folder.resolve()
        self.name = name or self._folder.name
        found: list[Entry] = []
        escaping: list[str] = []
        with reported(self.name):
            for path, relative in _walk(self._folder):
                if path.is_symlink() and not follow_links and self._is_unsafe(path):
                    escaping.append(f"{relative} -> {path.readlink()}")
                elif path.is_file():
                    found.append(Entry(relative, path.stat().st_size))
        refuse(self.name, "links to files inside it", escaping, "put what they point to in their place")
        self.entries = tuple(found)

    def _is_unsafe(self, link: Path) -> bool:
        target = link.resolve()
        return not (target.is_file() and target.is_relative_to(self._folder))

    def read(self, wanted: Collection[PurePosixPath]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """Open the wanted files in the order of the listing."""
        for entry in self.entries:
            if entry.path in wanted:
                with reported(self.name), (self._folder / entry.path).open("rb") as stream:
                    yield entry, chunks(entry, stream, self.name)


def chunks(entry: Entry, stream: IO[bytes], name: str) -> Iterator[bytes]:
    """Read one file to its declared end.

    Args:
        entry: the file with its declared size.
        stream: its bytes.
        name: name of the source, for messages.

    Yields:
        Pieces of at most one mebibyte.

    Raises:
        SourceError: if the file is shorter or longer than declared, or cannot be read.
    """
    left = entry.bytes
    while True:
        with reported(name):
            piece = stream.read(CHUNK)
        left -= len(piece)
        if left < 0 or (not piece and left):
            raise SourceError(
                f"expected {entry.bytes:,} bytes in {str(entry.path)!r}, received source={name} with "
                f"{'more' if left < 0 else f'{entry.bytes - left:,}'}; copy or download it again"
            )
        if not piece:
            return
        yield piece


def safe_path(name: str) -> PurePosixPath | None:
    """Judge the path of an archive's member.

    Args:
        name: the path as the archive spells it, with slashes.

    Returns:
        The relative path, or ``None`` if it is absolute, climbs with ``..`` or cannot be a path.
    """
    path = PurePosixPath(name)
    unsafe = path.is_absolute() or ".." in path.parts or "\0" in name or re.match(r"[A-Za-z]:", name)
    return None if unsafe else path


def some(names: Sequence[object], limit: int = 5) -> str:
    """Shorten a list of names for a message.

    Args:
        names: paths or names, which may hold any character.
        limit: how many are spelled out.

    Returns:
        The first ones quoted, and how many more there are.
    """
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def refuse(name: str, expected: str, refused: Sequence[str], remedy: str) -> None:
    """Refuse a source for some of its members.

    Args:
        name: name of the source.
        expected: what it may hold.
        refused: members that are something else.
        remedy: what to do.

    Raises:
        SourceError: if there are any.
    """
    if refused:
        raise SourceError(f"expected only {expected}, received source={name} that also holds {some(refused)}; {remedy}")


@contextmanager
def reported(name: str) -> Iterator[None]:
    """Report what reading raises as a damaged source."""
    try:
        yield
    except (*_DAMAGE, NotImplementedError) as error:
        raise SourceError(
            f"expected a whole, readable source, received source={name}, which is truncated, damaged or "
            f"not readable ({error}); copy or download it again"
        ) from error


def _walk(folder: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield the files of a folder, sorted, and the links in it; linked and hidden folders are not entered."""
    for base, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted([*files, *(name for name in folders if Path(base, name).is_symlink())]):
            path = Path(base, name)
            yield path, PurePosixPath(path.relative_to(folder).as_posix())


def _raise(error: OSError) -> None:
    raise error

"""What is scored: files that are listed first and read one at a time, from a folder, a store, or by their names."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cxr.data.dataset import IMAGE_SUFFIXES, is_system
from cxr.data.manifest.listing import list_files
from cxr.errors import ImageError
from cxr.images.decoding import Limits, read_bytes

MAX_BYTES = Limits().max_bytes


@dataclass(frozen=True, slots=True)
class File:
    """One file.

    Attributes:
        path: its name in the table.
        identity: text that changes when its content does.
    """

    path: str
    identity: str


class Files(ABC):
    """Files to score.

    Attributes:
        name: short name for messages.
        entries: the files, in the order of the table.
        workers: threads that suit the source; None for one per core.
    """

    name: str
    entries: Sequence[File]
    workers: int | None = None

    @abstractmethod
    def read(self, file: File) -> bytes:
        """Read one file; called by several threads.

        Args:
            file: one of :attr:`entries`.

        Returns:
            Its content.

        Raises:
            ImageError: if this file cannot be read.
            SourceError: if no file can be read any more.
        """


class FolderFiles(Files):
    """The images in a folder, at any depth; links are reported and never followed."""

    def __init__(self, folder: Path) -> None:
        """List a folder.

        Args:
            folder: the folder.

        Raises:
            SourceError: if it cannot be listed.
        """
        self._folder = folder
        self.name = folder.name
        self.entries = [File(path, _state(folder / path)) for path in list_files(folder)]

    def read(self, file: File) -> bytes:
        """Read one file."""
        return read_bytes(self._folder / file.path, max_bytes=MAX_BYTES)


class NamedFiles(Files):
    """Files that somebody named one by one; a link is followed, because it was named."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Take the names.

        Args:
            paths: paths of files, which need not exist.
        """
        self.name = f"{len(paths)} files" if len(paths) != 1 else Path(paths[0]).name
        self.entries = [File(path, _state(Path(path).resolve())) for path in paths]

    def read(self, file: File) -> bytes:
        """Read one file."""
        return read_bytes(Path(file.path).resolve(), max_bytes=MAX_BYTES)


class StoredFiles(Files):
    """The images below ``s3://bucket/prefix``, brought into memory one by one and never written to disk."""

    def __init__(self, url: str, *, endpoint_url: str | None = None) -> None:
        """List the objects.

        Args:
            url: ``s3://bucket/prefix``, or the address of one object.
            endpoint_url: address of a store other than Amazon's.

        Raises:
            SourceError: if the store cannot be reached, refuses, or holds nothing there.
        """
        from cxr.storage.connection import WORKERS
        from cxr.storage.object_store import StoredPrefix

        self._stored = StoredPrefix(url, Path(), endpoint_url=endpoint_url)
        self.name, self.workers = self._stored.name, WORKERS
        self.entries = [
            File(str(entry.path), self._stored.etag(entry.path))
            for entry in self._stored.entries
            if entry.path.suffix.lower() in IMAGE_SUFFIXES and not is_system(entry.path)
        ]

    def read(self, file: File) -> bytes:
        """Bring one object."""
        try:
            return self._stored.content(PurePosixPath(file.path), MAX_BYTES)
        except FileNotFoundError as error:
            raise ImageError("unreadable", str(error)) from error
        except OverflowError as error:
            raise ImageError("too_large", str(error)) from error


def _state(path: Path) -> str:
    """Size and time of a file, by which a change is seen."""
    try:
        found = os.lstat(path)
    except OSError:
        return "absent"
    return f"{found.st_size}-{found.st_mtime_ns}"

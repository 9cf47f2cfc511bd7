"""Images to score: listed first, then read one at a time, from a folder, a store, an archive, or by name."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from cxr.data.image_files import REASONS, choose_images
from cxr.data.image_index import ImageIndex, has_index
from cxr.data.manifest.listing import list_images
from cxr.errors import ImageError, TransferError
from cxr.files import utf8_name
from cxr.images.decoding import MAX_BYTES, read_bytes

TRANSFER = "transfer"
"""Kind of problem of a file that did not arrive whole: it has no answer yet, and the next run reads it again."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One file to score.

    Attributes:
        path: its name in the table.
        identity: text that changes when its content does.
    """

    path: str
    identity: str


class ImageSource(ABC):
    """A place that holds images to score.

    Attributes:
        name: short name for messages.
        files: the images, in the order of the table.
        workers: number of threads that suits the source; None for one per core.
        left_out: reason (key of :data:`cxr.data.image_files.REASONS`) to the files of the place that are no images.
    """

    name: str
    files: Sequence[ImageFile]
    workers: int | None = None
    left_out: Mapping[str, Sequence[str]] = MappingProxyType({})

    @property
    def left_out_figures(self) -> dict[str, dict[str, Any]]:
        """For the summary of a table: reason to its words, and number and paths of the files that are left out."""
        return {
            reason: {"why": REASONS[reason], "files": len(paths), "paths": [utf8_name(path) for path in paths]}
            for reason, paths in self.left_out.items()
        }

    @abstractmethod
    def read(self, file: ImageFile) -> bytes:
        """Read one file. Several threads call this at once.

        Args:
            file: one of :attr:`files`.

        Returns:
            Its content.

        Raises:
            ImageError: if this file cannot be read.
            SourceError: if the source fails, so that no file can be read.
        """


class FolderImages(ImageSource):
    """The images in a folder, at any depth, told by name or content. Links are reported and never followed."""

    def __init__(self, folder: Path) -> None:
        """List a folder.

        Args:
            folder: the folder.

        Raises:
            SourceError: if it cannot be listed.
        """
        self._folder = folder
        self.name = utf8_name(folder.name)
        listing = list_images(folder)
        self.files = [ImageFile(path, _state(folder / path)) for path in listing.images]
        self.left_out = listing.left_out

    def read(self, file: ImageFile) -> bytes:
        """Read one file."""
        return read_bytes(self._folder / file.path, max_bytes=MAX_BYTES)


class IndexedImages(ImageSource):
    """The images of a data folder that holds their index, read at their addresses."""

    def __init__(self, folder: Path) -> None:
        """Read the index.

        Args:
            folder: the data folder.

        Raises:
            DataError: if the index is damaged or wrong.
        """
        self._images = ImageIndex(folder)
        self.name, self.workers = utf8_name(folder.name), self._images.workers
        self.files = [ImageFile(name, self._images.size_and_sha256(name)[1]) for name in self._images.names()]

    def read(self, file: ImageFile) -> bytes:
        """Read one image."""
        return self._images.read(file.path, max_bytes=MAX_BYTES)


def open_folder(folder: Path) -> ImageSource:
    """Open a folder of images, or a data folder with their index.

    Args:
        folder: the folder.

    Returns:
        Its images.

    Raises:
        SourceError: if it cannot be listed.
        DataError: if its index is damaged or wrong.
    """
    return IndexedImages(folder) if has_index(folder) else FolderImages(folder)


class NamedImages(ImageSource):
    """Files that are named one by one. A link is followed, because the user named it."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Look up size and time of the files.

        Args:
            paths: paths of files; a missing file is reported when it is read.
        """
        self.name = f"{len(paths)} files" if len(paths) != 1 else utf8_name(Path(paths[0]).name)
        self.files = [ImageFile(path, _state(Path(path).resolve())) for path in paths]

    def read(self, file: ImageFile) -> bytes:
        """Read one file."""
        return read_bytes(Path(file.path).resolve(), max_bytes=MAX_BYTES)


class ObjectStoreImages(ImageSource):
    """The images below ``s3://bucket/prefix``, read into memory one by one and never written to disk.

    A listing says no more than names and sizes. For an object whose name does not end like that of an image, one more
    request reads its first bytes, in as many threads as the images later.
    """

    def __init__(self, url: str, *, endpoint_url: str | None = None) -> None:
        """List the objects.

        Args:
            url: ``s3://bucket/prefix``, or the address of one object.
            endpoint_url: address of an object store other than Amazon's; None uses the environment.

        Raises:
            SourceError: if the store cannot be reached, denies access, or holds nothing there.
        """
        from cxr.storage.connection import MAX_CONNECTIONS
        from cxr.storage.object_store import ObjectStoreContents

        self._failures = _FailureCount()
        self._contents = ObjectStoreContents(url, Path(), endpoint_url=endpoint_url)
        self.name, self.workers = self._contents.name, MAX_CONNECTIONS
        image_paths, left_out = choose_images(
            [entry.path for entry in self._contents.entries], self._contents.read_heads
        )
        self.files = [ImageFile(str(path), self._contents.etag(path)) for path in image_paths]
        self.left_out = {reason: [str(path) for path in paths] for reason, paths in left_out.items()}

    def read(self, file: ImageFile) -> bytes:
        """Read one object.

        Raises:
            ImageError: if this object is gone, too large, or does not arrive whole.
            SourceError: if the store cannot be reached, or if no object arrives whole any more.
        """
        return self._failures.watch(
            lambda: self._contents.content(PurePosixPath(file.path), MAX_BYTES), limit=self.workers or 1
        )


class DicomwebImages(ImageSource):
    """The radiographs of an archive that speaks DICOMweb, fetched into memory one by one and never written to disk."""

    def __init__(self, address: str, *, study: str | None, since: str | None, keep_uids: bool) -> None:
        """Find the images.

        Args:
            address: root of the services, such as ``https://host/dicom-web``.
            study: UID of the study to read; None for all studies since a date.
            since: first date of the studies, ``YYYYMMDD``; None where ``study`` is given.
            keep_uids: whether the table names an image by its UIDs, else by a digest of its UID.

        Raises:
            SourceError: if the archive cannot be reached, denies access, or gives no valid answer.
        """
        from cxr.storage.dicomweb import MAX_CONNECTIONS, DicomwebArchive

        self._failures = _FailureCount()
        self._archive = DicomwebArchive(address)
        self.name, self.workers = self._archive.name, MAX_CONNECTIONS
        images = self._archive.find_images(study=study, since=since)
        self._images = {
            f"{image.study}/{image.series}/{image.instance}" if keep_uids else image.digest: image for image in images
        }
        self.files = [ImageFile(path, image.instance) for path, image in self._images.items()]

    def read(self, file: ImageFile) -> bytes:
        """Fetch one image.

        Raises:
            ImageError: if this image is gone, too large, or does not arrive whole.
            SourceError: if the archive cannot be reached, or if no image arrives whole any more.
        """
        return self._failures.watch(
            lambda: self._archive.fetch(self._images[file.path], MAX_BYTES), limit=self.workers or 1
        )


class _FailureCount:
    """Counts the images in succession that did not arrive whole: where none does any more, the source has failed."""

    def __init__(self) -> None:
        self._in_succession = 0

    def watch(self, read: Callable[[], bytes], *, limit: int) -> bytes:
        """Read an image, and turn what is wrong with it alone into an ImageError."""
        try:
            data = read()
        except TransferError as error:
            self._in_succession += 1
            if self._in_succession > limit:
                raise
            raise ImageError(TRANSFER, str(error)) from error
        except FileNotFoundError as error:
            raise ImageError("unreadable", str(error)) from error
        except OverflowError as error:
            raise ImageError("too_large", str(error)) from error
        self._in_succession = 0
        return data


def _state(path: Path) -> str:
    """Size and time of a file: they change when the file does."""
    try:
        status = os.lstat(path)
    except OSError:
        return "absent"
    return f"{status.st_size}-{status.st_mtime_ns}"

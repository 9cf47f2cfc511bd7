"""The files of one version of the data in a DVC remote, read where they are instead of checked out."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from cxr.data.dataset import SIDE_FILES
from cxr.data.dvc_hashes import folder_md5
from cxr.data.fetching.indexing import index_images
from cxr.data.fetching.request import FetchRequest
from cxr.data.image_files import choose_images, is_system_file
from cxr.data.manifest.listing import parse_folder
from cxr.errors import SourceError
from cxr.storage.contents import FolderContents, SourceContents, SourceFile, safe_path, shorten_list
from cxr.storage.object_store import ObjectStoreContents

OBJECTS_FOLDER = "files/md5"
"""Where a remote keeps its files: ``files/md5/ab/cdef...`` for the file with the md5 ``abcdef...``."""


class DvcVersion(SourceContents):
    """The files of a version under the paths that they have in the data folder."""

    def __init__(self, request: FetchRequest) -> None:
        """Read the list of files, and find each one in the remote.

        Args:
            request: what to fetch: the address of the remote as its source, and the version.

        Raises:
            SourceError: if the remote cannot be read, or does not hold the whole version.
        """
        self.name = request.source.rstrip("/")
        version = str(request.data_version)
        self._objects = _open_remote(request)
        self._md5 = self._read_list(version)
        sizes = {file.path: file.bytes for file in self._objects.entries}
        missing = [md5 for md5 in self._md5.values() if _object_path(md5) not in sizes]
        if missing:
            raise incomplete_version(version, self.name, missing)
        self.entries = tuple(SourceFile(path, sizes[_object_path(md5)]) for path, md5 in self._md5.items())

    def read(self, paths: Collection[PurePosixPath]) -> Iterator[tuple[SourceFile, Iterator[bytes]]]:
        """Load files into memory one after the other."""
        for file, content in self.read_whole(paths):
            yield file, iter((content,))

    def read_whole(self, paths: Collection[PurePosixPath]) -> Iterator[tuple[SourceFile, bytes]]:
        """Load files into memory, and compare each with its md5."""
        by_object: dict[PurePosixPath, list[SourceFile]] = defaultdict(list)
        for file in self.entries:
            if file.path in paths:
                by_object[_object_path(self._md5[file.path])].append(file)
        for stored, content in self._objects.read_whole(by_object):
            for file in by_object[stored.path]:
                if hashlib.md5(content, usedforsecurity=False).hexdigest() != self._md5[file.path]:
                    raise SourceError(
                        f"expected the content of {str(file.path)!r} as its md5={self._md5[file.path]} says, received "
                        f"source={self.name} with another one, which is damaged; push it again from where the data are"
                    )
                yield file, content

    def read_heads(self, paths: Collection[PurePosixPath]) -> Mapping[PurePosixPath, bytes]:
        """Read the first bytes of files."""
        heads = self._objects.read_heads({_object_path(self._md5[path]) for path in paths})
        objects = {path: _object_path(self._md5[path]) for path in paths}
        return {path: heads[stored] for path, stored in objects.items() if stored in heads}

    def address(self, path: PurePosixPath) -> str | None:
        """Address of a file in the remote."""
        return self._objects.address(_object_path(self._md5[path]))

    def _read_list(self, version: str) -> dict[PurePosixPath, str]:
        """Read path and md5 of each file from the list that DVC has stored."""
        content = b"".join(content for _, content in self._objects.read_whole([_object_path(version)]))
        if not content:
            raise unknown_version(version, self.name)
        try:
            files = {safe_path(row["relpath"]): str(row["md5"]) for row in json.loads(content)}
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"expected the list of files of data_version={version} in JSON, received source={self.name} with a "
                f"damaged one ({error}); push it again from where the data are (dvc push)"
            ) from error
        if None in files:
            raise SourceError(f"expected paths inside of the data folder, received data_version={version} with others")
        return {path: md5 for path, md5 in files.items() if path is not None}


def unknown_version(version: str, source: str) -> SourceError:
    """Make the error about a remote without a version.

    Args:
        version: md5 of the data.
        source: address of the remote.
    """
    return SourceError(
        f"expected a DVC remote that holds data_version={version}, received source={source} without it; compare with "
        "the md5 in data.dvc, and push from where the data are (dvc push)"
    )


def incomplete_version(version: str, source: str, missing: Sequence[str]) -> SourceError:
    """Make the error about a remote without some files of a version.

    Args:
        version: md5 of the data.
        source: address of the remote.
        missing: md5 of each missing file.
    """
    return SourceError(
        f"expected a DVC remote with all files of data_version={version}, received source={source} without "
        f"{len(missing):,} of them (md5 {shorten_list(missing)}); push again from where the data are (dvc push)"
    )


def index_version(request: FetchRequest, folder: Path) -> None:
    """Index the images of a version, and copy its other files.

    Args:
        request: what to fetch: the address of the remote as its source, and the version.
        folder: empty folder to fill.

    Raises:
        SourceError: if the remote cannot be read, or does not hold the whole version.
    """
    version = DvcVersion(request)
    images = _images_of(version)
    index_images(version, {path: path for path in images}, folder, request)
    others = {file.path for file in version.entries} - set(images)
    for file, content in version.read_whole(others):
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    received = folder_md5(folder)
    if received != request.data_version:
        raise SourceError(
            f"expected data with md5={request.data_version}, received source={version.name} with md5={received}; "
            "compare with the md5 in data.dvc, and push again from where the data are (dvc push)"
        )


def _images_of(version: DvcVersion) -> list[PurePosixPath]:
    """Choose the files that :func:`cxr.data.manifest.listing.list_image_files` would list in the data folder."""
    in_classes: list[PurePosixPath] = []
    elsewhere: list[PurePosixPath] = []
    for file in version.entries:
        if parse_folder(file.path.parent)[1] is not None and not is_system_file(file.path):
            in_classes.append(file.path)
        elif str(file.path) not in SIDE_FILES:
            elsewhere.append(file.path)
    return [*in_classes, *choose_images(elsewhere, version.read_heads)[0]]


def _open_remote(request: FetchRequest) -> SourceContents:
    address = request.source.rstrip("/")
    if address.startswith("s3://"):
        return ObjectStoreContents(
            f"{address}/{OBJECTS_FOLDER}", request.downloads, endpoint_url=request.endpoint_url, may_be_empty=True
        )
    folder = Path(address).expanduser() / OBJECTS_FOLDER
    if not folder.is_dir():
        raise SourceError(
            f"expected a DVC remote: s3://bucket/prefix or a folder, received source={request.source} without "
            f"{OBJECTS_FOLDER}; check the spelling"
        )
    return FolderContents(folder)


def _object_path(md5: str) -> PurePosixPath:
    return PurePosixPath(md5[:2], md5[2:])

"""Lists a prefix of an S3 bucket (Amazon S3, MinIO, Ceph, ...) and downloads it; downloads can be resumed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from cxr.errors import SourceError
from cxr.files import expect_free_space
from cxr.images.parallel import map_in_order
from cxr.storage.bucket import (
    OTHER_BYTES,
    BrokenTransferError,
    Bucket,
    ChangedObjectError,
    StoredObject,
    matches_etag,
    name_broken_transfer,
    split_address,
)
from cxr.storage.connection import MAX_CONNECTIONS
from cxr.storage.contents import SourceContents, SourceFile, read_chunks, safe_path

PIECE_BYTES = 1 << 16


class ObjectStoreContents(SourceContents):
    """The objects below ``s3://bucket/prefix``, or the one object of that name.

    Keys become relative paths: slashes at their start, repeated slashes and ``.`` between slashes are dropped. A key
    that ends with a slash marks a folder, and is no entry. Credentials and settings are those of
    :class:`cxr.storage.bucket.Bucket`.

    Attributes:
        anonymous: whether there are no credentials.
    """

    def __init__(self, url: str, folder: Path, *, endpoint_url: str | None = None, may_be_empty: bool = False) -> None:
        """List the objects.

        Args:
            url: ``s3://bucket`` or ``s3://bucket/prefix``.
            folder: folder of the downloads; complete objects in it are not downloaded again.
            endpoint_url: address of the store; None for ``AWS_ENDPOINT_URL`` or Amazon's.
            may_be_empty: whether a prefix without objects is allowed.

        Raises:
            SourceError: if the store cannot be reached, refuses, or has no objects there, or if keys cannot become
                paths of different files.
        """
        self.name = url.rstrip("/")
        self._bucket_name, prefix = split_address(self.name)
        self._folder = folder / hashlib.sha256(f"{endpoint_url}\n{self.name}".encode()).hexdigest()[:16]
        self._bucket = Bucket(self._bucket_name, name=self.name, endpoint_url=endpoint_url)
        self.anonymous = self._bucket.anonymous
        objects = self._bucket.list_objects(prefix)
        self._objects = _objects_by_path(objects, prefix, self.name)
        if not self._objects and not may_be_empty:
            raise SourceError(
                f"expected objects below the prefix, received source={self.name} with none; check the spelling"
            )
        self.entries = tuple(SourceFile(path, item.bytes) for path, item in self._objects.items())

    def read(self, paths: Collection[PurePosixPath]) -> Iterator[tuple[SourceFile, Iterator[bytes]]]:
        """Download objects in parallel, then open them one after the other."""
        selected = [file for file in self.entries if file.path in paths]
        downloads = self.download([file.path for file in selected])
        for file in selected:
            with downloads[file.path].open("rb") as stream:
                yield file, read_chunks(file, stream, self.name)

    def read_heads(self, paths: Collection[PurePosixPath]) -> Mapping[PurePosixPath, bytes]:
        """Read the first bytes of objects: one request for each that is not empty, in parallel.

        An object that was deleted or has changed since it was listed is not in the result.
        """
        with ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
            heads = pool.map(lambda path: self._bucket.load_head(self._objects[path]), paths)
            bar = tqdm(heads, f"look at {self.name}", len(paths), delay=1, leave=False, unit=" files", disable=None)
            return {path: head for path, head in zip(paths, bar, strict=True) if head is not None}

    def read_whole(self, paths: Collection[PurePosixPath]) -> Iterator[tuple[SourceFile, bytes]]:
        """Load objects in parallel; a few are in memory at once, and nothing is written to disk."""
        selected = [(file,) for file in self.entries if file.path in paths]
        yield from map_in_order(self._load, selected, MAX_CONNECTIONS, max_pending=MAX_CONNECTIONS)

    def address(self, path: PurePosixPath) -> str:
        """Address of an object."""
        return f"s3://{self._bucket_name}/{self._objects[path].key}"

    def _load(self, file: SourceFile) -> tuple[SourceFile, bytes]:
        item = self._objects[file.path]
        try:
            return file, self._bucket.load(item)
        except FileNotFoundError as error:
            raise self._changed(item, error) from error

    def _changed(self, item: StoredObject, error: FileNotFoundError) -> SourceError:
        return SourceError(
            f"expected {item.key!r} as it was listed, received source={self.name} where it is {error}; run the "
            "same command again"
        )

    def download(self, paths: Sequence[PurePosixPath]) -> dict[PurePosixPath, Path]:
        """Download objects and resume what an interrupted run has begun.

        Files are named by key and ETag. So an object that changed in the store gets another file, and a file of full
        size is the complete object. Files of objects that no longer exist are removed.

        Args:
            paths: paths of :attr:`entries`.

        Returns:
            Path of each downloaded file.

        Raises:
            TransferError: if an object does not arrive whole in several tries; the received bytes are kept for the
                next run.
            SourceError: if the store cannot be reached, or refuses.
            DiskFullError: if the disk has no room for them.
        """
        files = {path: self._folder / _file_name(self._objects[path]) for path in paths}
        self._folder.mkdir(parents=True, exist_ok=True)
        current_names = {name for file in files.values() for name in (file.name, f"{file.name}.part")}
        for leftover in self._folder.iterdir():
            if leftover.name not in current_names:
                leftover.unlink()
        total = sum(self._objects[path].bytes for path in paths)
        present = sum(max(_size(file), _size(file.with_name(f"{file.name}.part"))) for file in files.values())
        expect_free_space(self._folder, total - present, f"the downloads from {self.name}")
        with (
            tqdm(total=total, unit="B", unit_scale=True, desc=f"download {self.name}", disable=None) as bar,
            ThreadPoolExecutor(MAX_CONNECTIONS) as pool,
        ):
            tasks = [pool.submit(self._download_object, self._objects[path], file, bar) for path, file in files.items()]
            try:
                for task in tasks:
                    task.result()
            except BaseException:  # also Ctrl-C: no task starts any more, and running ones stop at their next piece
                self._bucket.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return files

    def etag(self, path: PurePosixPath) -> str:
        """Return the identity of an object's content, as the store states it.

        Args:
            path: path of one of :attr:`entries`.

        Returns:
            The ETag, without quotes.
        """
        return self._objects[path].etag

    def content(self, path: PurePosixPath, max_bytes: int) -> bytes:
        """Load one object into memory; a transfer that breaks or brings other bytes is tried again.

        Args:
            path: path of one of :attr:`entries`.
            max_bytes: largest size that is loaded.

        Returns:
            The object, verified as :meth:`download` does.

        Raises:
            FileNotFoundError: if it was deleted or has changed since it was listed.
            OverflowError: if it is larger.
            TransferError: if it does not arrive whole in several tries.
            SourceError: if the store does not respond, or refuses.
        """
        item = self._objects[path]
        if item.bytes > max_bytes:
            raise OverflowError(f"expected at most {max_bytes} bytes, received bytes={item.bytes}")
        return self._bucket.load(item)

    def _download_object(self, item: StoredObject, file: Path, bar: tqdm[Any]) -> None:
        """Download one object unless its file is complete; each attempt goes on where the last one stopped."""
        if file.exists():
            bar.update(item.bytes)
            return
        part = file.with_name(f"{file.name}.part")
        bar.update(min(_size(part), item.bytes))
        try:
            self._bucket.try_again(item.description, lambda: self._append(item, part, bar))
        except ChangedObjectError as error:
            raise self._changed(item, error) from error
        part.rename(file)

    def _append(self, item: StoredObject, part: Path, bar: tqdm[Any]) -> None:
        """Request the missing bytes, and verify the size and, where the store states it, the MD5 sum."""
        # At least one byte is requested, because the response says whether the object is encrypted.
        start = min(_size(part), max(item.bytes - 1, 0))
        if part.exists():
            os.truncate(part, start)
        request = {"Range": f"bytes={start}-"} if start else {}
        response = self._bucket.request(item, **request)
        is_partial = response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if is_partial else "wb") as stream, name_broken_transfer():
            for piece in response["Body"].iter_chunks(PIECE_BYTES):
                if self._bucket.stopped.is_set():
                    raise SourceError(f"expected to finish, received source={self.name} that was interrupted")
                stream.write(piece)
                bar.update(len(piece))
        received = _size(part)
        if received < item.bytes:
            raise BrokenTransferError(f"a connection that ended after {received:,} bytes")
        if received > item.bytes or not matches_etag(_md5_of(part), item.etag, response):
            part.unlink()
            bar.update(-received)
            raise BrokenTransferError(OTHER_BYTES)


def _objects_by_path(objects: Iterable[StoredObject], prefix: str, name: str) -> dict[PurePosixPath, StoredObject]:
    by_path: dict[PurePosixPath, StoredObject] = {}
    for item in objects:
        path = _relative_path(item.key, prefix, name)
        if path in by_path:
            raise SourceError(
                f"expected keys that become paths of different files, received source={name} with "
                f"{by_path[path].key!r} and {item.key!r}, both of which become {str(path)!r}; rename one of them"
            )
        by_path[path] = item
    return by_path


def _relative_path(key: str, prefix: str, name: str) -> PurePosixPath:
    """Return the path of an object below the prefix, or its last part if its key is the prefix."""
    below_prefix = PurePosixPath(key).name if key == prefix else key[len(prefix) :].lstrip("/")
    path = safe_path(below_prefix)
    if path is None or not path.parts:
        raise SourceError(
            f"expected keys that can be paths of files, received source={name} with {key!r}; rename it, so that it "
            "does not hold '..' or begin with a drive like 'C:'"
        )
    return path


def _file_name(item: StoredObject) -> str:
    identity = hashlib.sha256(f"{item.key}\n{item.etag}\n{item.bytes}".encode()).hexdigest()[:24]
    return identity + "".join(PurePosixPath(item.key).suffixes[-2:])[-16:]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

"""Lists a prefix of an S3 bucket (Amazon S3, MinIO, Ceph, ...) and downloads it; downloads can be resumed."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any, TypeVar

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from tqdm import tqdm

from cxr.errors import SourceError, TransferError
from cxr.files import expect_free_space
from cxr.images.file_types import HEAD_BYTES
from cxr.storage.connection import (
    CHANGED_OBJECT_CODES,
    CONNECTION_ERRORS,
    MAX_ATTEMPTS,
    MAX_CONNECTIONS,
    create_s3_client,
    error_code,
    translate_s3_errors,
)
from cxr.storage.contents import SourceContents, SourceFile, read_chunks, safe_path

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 16
FIRST_PAUSE = 0.2
"""Seconds of pause after a first transfer that broke or brought other bytes; each further pause is twice as long."""

Result = TypeVar("Result")

_OTHER_BYTES = "other bytes than were listed"
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class _ChangedObjectError(FileNotFoundError):
    """An object was deleted or replaced after it was listed."""


class _BrokenTransferError(Exception):
    """One transfer of an object broke, or brought other bytes than were listed."""


@dataclass(frozen=True)
class StoredObject:
    """One object of a bucket.

    Attributes:
        key: its full key.
        bytes: its size.
        etag: identity of its content, as the store states it.
    """

    key: str
    bytes: int
    etag: str


class ObjectStoreContents(SourceContents):
    """The objects below ``s3://bucket/prefix``, or the one object of that name.

    Keys become relative paths: slashes at their start, repeated slashes and ``.`` between slashes are dropped. A key
    that ends with a slash marks a folder, and is no entry.

    Credentials, region, profile and endpoint come from the environment variables and files of the AWS tools
    (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL`` ...). Without credentials the requests are sent
    unsigned, which public buckets accept.

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
        bucket, _, prefix = self.name.removeprefix("s3://").partition("/")
        if not _BUCKET_NAME.fullmatch(bucket):
            received = f"s3://{self.name.removeprefix('s3://').rpartition('@')[2]}"
            hint = ", and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for keys" if "@" in self.name else ""
            raise SourceError(
                f"expected s3://bucket/prefix, received source={received}; correct the bucket's name{hint}"
            )
        self._bucket = bucket
        self._stop = Event()
        self._folder = folder / hashlib.sha256(f"{endpoint_url}\n{self.name}".encode()).hexdigest()[:16]
        with translate_s3_errors(self.name):
            self._client, self.anonymous = create_s3_client(endpoint_url)
        objects = self._try_again("a listing", lambda: list(self._list(prefix)))
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
            heads = pool.map(lambda path: self._read_head(self._objects[path]), paths)
            bar = tqdm(heads, f"look at {self.name}", len(paths), delay=1, leave=False, unit=" files", disable=None)
            return {path: head for path, head in zip(paths, bar, strict=True) if head is not None}

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
                self._stop.set()
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
        return self._try_again(_describe(item), lambda: self._load(item))

    def _load(self, item: StoredObject) -> bytes:
        data, response = self._get_object(item)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if len(data) != item.bytes or not _matches_etag(md5, item.etag, response):
            raise _BrokenTransferError(_OTHER_BYTES)
        return data

    def _read_head(self, item: StoredObject) -> bytes | None:
        if not item.bytes:
            return b""
        head_range = f"bytes=0-{HEAD_BYTES - 1}"
        try:
            return self._try_again(_describe(item), lambda: self._get_object(item, Range=head_range)[0])
        except FileNotFoundError:
            return None

    def _get_object(self, item: StoredObject, **request: str) -> tuple[bytes, Mapping[str, Any]]:
        """Load an object, or the range of it that the request names, and the response without its body."""
        response = self._request(item, **request)
        with _name_broken_transfer():
            return bytes(response["Body"].read()), response

    def _request(self, item: StoredObject, **request: str) -> Mapping[str, Any]:
        """Request an object, or a range of it; the body is not read."""
        try:
            response: Mapping[str, Any] = self._client.get_object(
                Bucket=self._bucket, Key=item.key, IfMatch=item.etag, **request
            )
        except ClientError as error:
            if error_code(error) not in CHANGED_OBJECT_CODES:
                raise
            raise _ChangedObjectError(f"gone or changed since it was listed ({error_code(error)})") from error
        # Some stores do not compare the ETag themselves.
        if response.get("ETag", item.etag).strip('"') != item.etag:
            response["Body"].close()
            raise _ChangedObjectError("changed since it was listed (another ETag)")
        return response

    def _try_again(self, expected: str, transfer: Callable[[], Result]) -> Result:
        """Try a transfer, and try again after a growing pause if it breaks or brings other bytes."""
        with translate_s3_errors(self.name, anonymous=self.anonymous):
            for attempt in range(MAX_ATTEMPTS):
                self._stop.wait(FIRST_PAUSE * 2 ** (attempt - 1) if attempt else 0)
                try:
                    return transfer()
                except _BrokenTransferError as error:
                    problem = error
            raise TransferError(
                f"expected {expected}, received source={self.name} with {MAX_ATTEMPTS} transfers that failed, the last "
                f"one by {problem}; run the same command again"
            ) from problem

    def _list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in _whole_pages(pages):
            for item in page.get("Contents", ()):
                key = item["Key"]
                is_below_prefix = not prefix or key == prefix or key.startswith(f"{prefix}/")
                if is_below_prefix and key.endswith("/") and item["Size"]:
                    log.warning(
                        "%s: left out %r with %s bytes: a key that ends with a slash marks a folder", self.name, key,
                        f"{item['Size']:,}",
                    )  # fmt: skip
                elif is_below_prefix and not key.endswith("/"):
                    yield StoredObject(key, item["Size"], item["ETag"].strip('"'))

    def _download_object(self, item: StoredObject, file: Path, bar: tqdm[Any]) -> None:
        """Download one object unless its file is complete; each attempt goes on where the last one stopped."""
        if file.exists():
            bar.update(item.bytes)
            return
        part = file.with_name(f"{file.name}.part")
        bar.update(min(_size(part), item.bytes))
        try:
            self._try_again(_describe(item), lambda: self._append(item, part, bar))
        except _ChangedObjectError as error:
            raise SourceError(
                f"expected {item.key!r} as it was listed, received source={self.name} where it is {error}; run the "
                "same command again"
            ) from error
        part.rename(file)

    def _append(self, item: StoredObject, part: Path, bar: tqdm[Any]) -> None:
        """Request the missing bytes, and verify the size and, where the store states it, the MD5 sum."""
        # At least one byte is requested, because the response says whether the object is encrypted.
        start = min(_size(part), max(item.bytes - 1, 0))
        if part.exists():
            os.truncate(part, start)
        request = {"Range": f"bytes={start}-"} if start else {}
        response = self._request(item, **request)
        is_partial = response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if is_partial else "wb") as stream, _name_broken_transfer():
            for piece in response["Body"].iter_chunks(PIECE_BYTES):
                if self._stop.is_set():
                    raise SourceError(f"expected to finish, received source={self.name} that was interrupted")
                stream.write(piece)
                bar.update(len(piece))
        received = _size(part)
        if received < item.bytes:
            raise _BrokenTransferError(f"a connection that ended after {received:,} bytes")
        if received > item.bytes or not _matches_etag(_md5_of(part), item.etag, response):
            part.unlink()
            bar.update(-received)
            raise _BrokenTransferError(_OTHER_BYTES)


def _describe(item: StoredObject) -> str:
    return f"{item.bytes:,} bytes of {item.key!r}"


def _whole_pages(pages: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    try:
        yield from pages
    except ResponseParserError as error:
        raise _BrokenTransferError(f"a damaged answer ({error})") from error


@contextmanager
def _name_broken_transfer() -> Iterator[None]:
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise _BrokenTransferError(f"a connection that broke ({error})") from error


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


def _matches_etag(md5: str, etag: str, response: Mapping[str, Any]) -> bool:
    """Compare with the ETag if it is an MD5 sum: for objects that were uploaded in one part, without an own key."""
    has_own_key = response.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in response
    return has_own_key or not re.fullmatch(r"[0-9a-f]{32}", etag) or md5 == etag

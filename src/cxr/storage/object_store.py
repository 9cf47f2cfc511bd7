"""Lists a prefix of an S3 bucket (Amazon S3, MinIO, Ceph, ...) and downloads it; downloads can be resumed."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any

from botocore.exceptions import ClientError, IncompleteReadError
from tqdm import tqdm

from cxr.errors import SourceError
from cxr.images.file_types import HEAD_BYTES
from cxr.storage.connection import (
    CHANGED_OBJECT_CODES,
    CONNECTION_ERRORS,
    MAX_CONNECTIONS,
    create_s3_client,
    error_code,
    translate_s3_errors,
)
from cxr.storage.contents import SourceContents, SourceFile, read_chunks, safe_path

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 16
MAX_ATTEMPTS = 3
"""How often one object is tried, each time from the byte where the last attempt stopped."""

_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


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
            raise SourceError(f"expected s3://bucket/prefix, received source={url}; correct the bucket's name")
        self._bucket = bucket
        self._stop = Event()
        self._folder = folder / hashlib.sha256(f"{endpoint_url}\n{self.name}".encode()).hexdigest()[:16]
        with translate_s3_errors(self.name):
            self._client, self.anonymous = create_s3_client(endpoint_url)
        with translate_s3_errors(self.name, anonymous=self.anonymous):
            self._objects = _objects_by_path(self._list(prefix), prefix, self.name)
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
            SourceError: if an object cannot be downloaded completely; the received bytes are kept for the next run.
        """
        files = {path: self._folder / _file_name(self._objects[path]) for path in paths}
        self._folder.mkdir(parents=True, exist_ok=True)
        current_names = {name for file in files.values() for name in (file.name, f"{file.name}.part")}
        for leftover in self._folder.iterdir():
            if leftover.name not in current_names:
                leftover.unlink()
        total = sum(self._objects[path].bytes for path in paths)
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
        """Load one object into memory; an interrupted transfer is tried again from the beginning.

        Args:
            path: path of one of :attr:`entries`.
            max_bytes: largest size that is loaded.

        Returns:
            The object, verified as :meth:`download` does.

        Raises:
            FileNotFoundError: if it was deleted or has changed since it was listed.
            OverflowError: if it is larger.
            SourceError: if the store does not respond, or refuses.
        """
        item = self._objects[path]
        if item.bytes > max_bytes:
            raise OverflowError(f"expected at most {max_bytes} bytes, received bytes={item.bytes}")
        data, response = self._get_object(item)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if len(data) != item.bytes or not _matches_etag(md5, item.etag, response):
            raise FileNotFoundError("other bytes than were listed")
        return data

    def _read_head(self, item: StoredObject) -> bytes | None:
        if not item.bytes:
            return b""
        try:
            return self._get_object(item, Range=f"bytes=0-{HEAD_BYTES - 1}")[0]
        except FileNotFoundError:
            return None

    def _get_object(self, item: StoredObject, **request: str) -> tuple[bytes, Mapping[str, Any]]:
        """Load an object, or the range of it that the request names, and the response without its body."""
        with translate_s3_errors(self.name, anonymous=self.anonymous):
            for attempt in range(1, MAX_ATTEMPTS + 1):
                try:
                    response = self._client.get_object(Bucket=self._bucket, Key=item.key, IfMatch=item.etag, **request)
                    data = bytes(response["Body"].read())
                    break
                except CONNECTION_ERRORS:
                    if attempt == MAX_ATTEMPTS:
                        raise
                except ClientError as error:
                    if error_code(error) not in CHANGED_OBJECT_CODES:
                        raise
                    raise FileNotFoundError(f"gone or changed since it was listed ({error_code(error)})") from error
        return data, response

    def _list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
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
        with translate_s3_errors(self.name, anonymous=self.anonymous):
            for attempt in range(1, MAX_ATTEMPTS + 1):
                try:
                    self._append(item, part, bar)
                    break
                except CONNECTION_ERRORS as error:
                    if attempt == MAX_ATTEMPTS:
                        raise SourceError(
                            f"expected {item.bytes:,} bytes of {item.key!r}, received source={self.name} "
                            f"that stopped after {_size(part):,} ({error}); run the same command again, it "
                            "goes on from there"
                        ) from error
        part.rename(file)

    def _append(self, item: StoredObject, part: Path, bar: tqdm[Any]) -> None:
        """Request the missing bytes, and verify the size and, where the store states it, the MD5 sum."""
        # At least one byte is requested, because the response says whether the object is encrypted.
        start = min(_size(part), max(item.bytes - 1, 0))
        if part.exists():
            os.truncate(part, start)
        request = {"Range": f"bytes={start}-"} if start else {}
        response = self._client.get_object(Bucket=self._bucket, Key=item.key, IfMatch=item.etag, **request)
        is_partial = response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if is_partial else "wb") as stream:
            for piece in response["Body"].iter_chunks(PIECE_BYTES):
                if self._stop.is_set():
                    raise SourceError(f"expected to finish, received source={self.name} that was interrupted")
                stream.write(piece)
                bar.update(len(piece))
        received = _size(part)
        if received < item.bytes:
            raise IncompleteReadError(actual_bytes=received, expected_bytes=item.bytes)
        if received > item.bytes or not _matches_etag(_md5_of(part), item.etag, response):
            part.unlink()
            raise SourceError(
                f"expected the listed content of {item.key!r}, received source={self.name} with other "
                "bytes, by a damaged transfer or a change meanwhile; run the same command again"
            )


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

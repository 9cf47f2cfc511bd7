"""Object storage that speaks S3 (Amazon S3, MinIO, Ceph, ...): list a prefix and download it, resumably."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any

from botocore.exceptions import ClientError, IncompleteReadError
from tqdm import tqdm

from cxr.errors import SourceError
from cxr.storage.connection import CHANGED, INTERRUPTED, WORKERS, code_of, connect, explained
from cxr.storage.contents import Contents, Entry, chunks, safe_path

PIECE = 1 << 16
ATTEMPTS = 3
"""How often one object is tried, each time from the byte where it stopped."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


@dataclass(frozen=True)
class StoredObject:
    """One object of a bucket.

    Attributes:
        key: its full key.
        bytes: its size.
        etag: identity of its content, as the store gives it.
    """

    key: str
    bytes: int
    etag: str


class StoredPrefix(Contents):
    """Objects below ``s3://bucket/prefix``, or the one object of that name.

    Credentials, region, profile and endpoint come from the environment and files that AWS tools use
    (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL`` ...). Without credentials the requests are
    sent unsigned, which public buckets accept.

    Attributes:
        anonymous: whether there are no credentials.
    """

    def __init__(self, url: str, folder: Path, *, endpoint_url: str | None = None, may_be_empty: bool = False) -> None:
        """List the objects.

        Args:
            url: ``s3://bucket`` or ``s3://bucket/prefix``.
            folder: where downloads are kept; whole objects in it are not fetched again.
            endpoint_url: address of the store; ``None`` takes ``AWS_ENDPOINT_URL`` or Amazon's.
            may_be_empty: whether it is right that nothing is there.

        Raises:
            SourceError: if the store cannot be reached, refuses, or holds nothing there.
        """
        self.name = url.rstrip("/")
        bucket, _, prefix = self.name.removeprefix("s3://").partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise SourceError(f"expected s3://bucket/prefix, received source={url}; correct the bucket's name")
        self._bucket = bucket
        self._stop = Event()
        self._folder = folder / hashlib.sha256(f"{endpoint_url}\n{self.name}".encode()).hexdigest()[:16]
        with explained(self.name):
            self._client, self.anonymous = connect(endpoint_url)
        with explained(self.name, anonymous=self.anonymous):
            self._objects = {_relative(found.key, prefix, self.name): found for found in self._list(prefix)}
        if not self._objects and not may_be_empty:
            raise SourceError(
                f"expected objects below the prefix, received source={self.name} with none; check the spelling"
            )
        self.entries = tuple(Entry(path, found.bytes) for path, found in self._objects.items())

    def read(self, wanted: Collection[PurePosixPath]) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """Download the wanted objects in parallel, then open them one after the other."""
        kept = [entry for entry in self.entries if entry.path in wanted]
        files = self.download([entry.path for entry in kept])
        for entry in kept:
            with files[entry.path].open("rb") as stream:
                yield entry, chunks(entry, stream, self.name)

    def download(self, wanted: Sequence[PurePosixPath]) -> dict[PurePosixPath, Path]:
        """Bring objects to this machine; what an interrupted run left is continued.

        Files are named by key and ETag, so an object that changed in the store is another file and a file of
        the full size is the whole object. Files of objects that are no longer there are removed.

        Args:
            wanted: paths of :attr:`entries`.

        Returns:
            Path of each downloaded file.

        Raises:
            SourceError: if an object cannot be brought whole; what came is kept for the next run.
        """
        files = {path: self._folder / _file_name(self._objects[path]) for path in wanted}
        self._folder.mkdir(parents=True, exist_ok=True)
        current = {name for file in files.values() for name in (file.name, f"{file.name}.part")}
        for leftover in self._folder.iterdir():
            if leftover.name not in current:
                leftover.unlink()
        total = sum(self._objects[path].bytes for path in wanted)
        with (
            tqdm(total=total, unit="B", unit_scale=True, desc=f"download {self.name}", disable=None) as bar,
            ThreadPoolExecutor(WORKERS) as pool,
        ):
            tasks = [pool.submit(self._bring, self._objects[path], file, bar) for path, file in files.items()]
            try:
                for task in tasks:
                    task.result()
            except BaseException:  # also Ctrl-C: nothing new starts, and what runs stops at its next piece
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return files

    def etag(self, path: PurePosixPath) -> str:
        """Identity of an object's content, as the store gives it.

        Args:
            path: path of one of :attr:`entries`.

        Returns:
            The ETag, without quotes.
        """
        return self._objects[path].etag

    def content(self, path: PurePosixPath, max_bytes: int) -> bytes:
        """Bring one object into memory; a transfer that breaks off is tried again from its beginning.

        Args:
            path: path of one of :attr:`entries`.
            max_bytes: size above which nothing is brought.

        Returns:
            The object, checked as :meth:`download` does.

        Raises:
            FileNotFoundError: if it is gone, or has changed since it was listed.
            OverflowError: if it is larger.
            SourceError: if the store doesn't answer, or refuses.
        """
        found = self._objects[path]
        if found.bytes > max_bytes:
            raise OverflowError(f"expected at most {max_bytes} bytes, received bytes={found.bytes}")
        with explained(self.name, anonymous=self.anonymous):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    answer = self._client.get_object(Bucket=self._bucket, Key=found.key, IfMatch=found.etag)
                    data = bytes(answer["Body"].read())
                    break
                except INTERRUPTED:
                    if attempt == ATTEMPTS:
                        raise
                except ClientError as error:
                    if code_of(error) not in CHANGED:
                        raise
                    raise FileNotFoundError(f"gone or changed since it was listed ({code_of(error)})") from error
        if len(data) != found.bytes or not _is_content(
            hashlib.md5(data, usedforsecurity=False).hexdigest(), found.etag, answer
        ):
            raise FileNotFoundError("other bytes than were listed")
        return data

    def _list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", ()):
                key = found["Key"]
                inside = not prefix or key == prefix or key.startswith(f"{prefix}/")
                if inside and not key.endswith("/"):
                    yield StoredObject(key, found["Size"], found["ETag"].strip('"'))

    def _bring(self, found: StoredObject, file: Path, bar: tqdm[Any]) -> None:
        """Download one object unless its file is whole; each attempt goes on where the last one stopped."""
        if file.exists():
            bar.update(found.bytes)
            return
        part = file.with_name(f"{file.name}.part")
        bar.update(min(_size(part), found.bytes))
        with explained(self.name, anonymous=self.anonymous):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    self._append(found, part, bar)
                    break
                except INTERRUPTED as error:
                    if attempt == ATTEMPTS:
                        raise SourceError(
                            f"expected {found.bytes:,} bytes of {found.key!r}, received source={self.name} "
                            f"that stopped after {_size(part):,} ({error}); run the same command again, it "
                            "goes on from there"
                        ) from error
        part.rename(file)

    def _append(self, found: StoredObject, part: Path, bar: tqdm[Any]) -> None:
        """Ask for the bytes that are missing, and check size and, where the store gives it, MD5."""
        begun = min(_size(part), max(found.bytes - 1, 0))  # one byte at least: the answer tells of encryption
        if part.exists():
            os.truncate(part, begun)
        request = {"Range": f"bytes={begun}-"} if begun else {}
        answer = self._client.get_object(Bucket=self._bucket, Key=found.key, IfMatch=found.etag, **request)
        continued = answer["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if continued else "wb") as stream:
            for piece in answer["Body"].iter_chunks(PIECE):
                if self._stop.is_set():
                    raise SourceError(f"expected to finish, received source={self.name} that was interrupted")
                stream.write(piece)
                bar.update(len(piece))
        received = _size(part)
        if received < found.bytes:
            raise IncompleteReadError(actual_bytes=received, expected_bytes=found.bytes)
        if received > found.bytes or not _same_content(part, found.etag, answer):
            part.unlink()
            raise SourceError(
                f"expected the listed content of {found.key!r}, received source={self.name} with other "
                "bytes, by a damaged transfer or a change meanwhile; run the same command again"
            )


def _relative(key: str, prefix: str, name: str) -> PurePosixPath:
    """Path of an object below the prefix; the object that is the prefix keeps its last part."""
    below = PurePosixPath(key).name if key == prefix else key[len(prefix) + 1 if prefix else 0 :]
    path = safe_path(below)
    if path is None:
        raise SourceError(f"expected keys that are relative paths, received source={name} with {key!r}; rename it")
    return path


def _file_name(found: StoredObject) -> str:
    identity = hashlib.sha256(f"{found.key}\n{found.etag}\n{found.bytes}".encode()).hexdigest()[:24]
    return identity + "".join(PurePosixPath(found.key).suffixes[-2:])[-16:]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _same_content(path: Path, etag: str, answer: Mapping[str, Any]) -> bool:
    with path.open("rb") as stream:
        md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    return _is_content(md5.hexdigest(), etag, answer)


def _is_content(md5: str, etag: str, answer: Mapping[str, Any]) -> bool:
    """Compare with the ETag where it is an MD5: objects sent in one part, without a named key."""
    keyed = answer.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in answer
    return keyed or not re.fullmatch(r"[0-9a-f]{32}", etag) or md5 == etag

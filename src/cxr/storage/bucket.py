"""Single objects of an S3 bucket: loaded and verified, requested again if a transfer breaks, and uploaded."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event
from typing import Any, TypeVar

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from cxr.errors import SourceError, TransferError
from cxr.images.file_types import HEAD_BYTES
from cxr.storage.connection import (
    CHANGED_OBJECT_CODES,
    CONNECTION_ERRORS,
    MAX_ATTEMPTS,
    create_s3_client,
    error_code,
    translate_s3_errors,
)

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.2
"""Seconds of pause after a first transfer that broke or brought other bytes; each further pause is twice as long."""

Result = TypeVar("Result")

OTHER_BYTES = "other bytes than were listed"
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_MD5_SUM = re.compile(r"[0-9a-f]{32}")


class ChangedObjectError(FileNotFoundError):
    """An object was deleted or replaced after it was listed."""


class BrokenTransferError(Exception):
    """One transfer of an object broke, or brought other bytes than were listed."""


@dataclass(frozen=True)
class StoredObject:
    """One object of a bucket.

    Attributes:
        key: its full key.
        bytes: its size.
        etag: identity of its content, as the store states it; empty if it is not known.
    """

    key: str
    bytes: int
    etag: str

    @property
    def description(self) -> str:
        """Size and key, for messages."""
        return f"{self.bytes:,} bytes of {self.key!r}"


def split_address(url: str) -> tuple[str, str]:
    """Split an address into bucket and key or prefix.

    Args:
        url: ``s3://bucket``, ``s3://bucket/prefix`` or ``s3://bucket/key``.

    Returns:
        The bucket, and what follows it; empty if nothing does.

    Raises:
        SourceError: if the name of the bucket cannot be one.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not _BUCKET_NAME.fullmatch(bucket):
        received = f"s3://{url.removeprefix('s3://').rpartition('@')[2]}"
        hint = ", and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for keys" if "@" in url else ""
        raise SourceError(f"expected s3://bucket/prefix, received source={received}; correct the bucket's name{hint}")
    return bucket, key


class Bucket:
    """One bucket. Several threads may call the methods at once.

    Credentials, region, profile and endpoint come from the environment variables and files of the AWS tools
    (``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL`` ...). Without credentials the requests are sent
    unsigned, which public buckets accept.

    Attributes:
        name: address, for messages.
        anonymous: whether there are no credentials.
        stopped: set it to end all transfers.
    """

    def __init__(self, bucket: str, *, name: str, endpoint_url: str | None) -> None:
        """Create the client; nothing is requested yet.

        Args:
            bucket: name of the bucket.
            name: address, for messages.
            endpoint_url: address of the store; None for ``AWS_ENDPOINT_URL`` or Amazon's.

        Raises:
            SourceError: if the settings of the client are wrong.
        """
        self.name = name
        self.stopped = Event()
        self._bucket = bucket
        with translate_s3_errors(name):
            self._client, self.anonymous = create_s3_client(endpoint_url)

    def list_objects(self, prefix: str) -> list[StoredObject]:
        """List the objects below a prefix, or the one object of that key.

        Args:
            prefix: the prefix, without a slash at its end; empty for the whole bucket.

        Returns:
            The objects. A key that ends with a slash marks a folder and is left out.

        Raises:
            SourceError: if the store cannot be reached, or refuses.
        """
        return self.try_again("a listing", lambda: list(self._list(prefix)))

    def load(self, item: StoredObject) -> bytes:
        """Load one object into memory; a transfer that breaks or brings other bytes is tried again.

        Args:
            item: the object. Without an ETag, only the size tells an object that was replaced.

        Returns:
            The object, verified by size and, where the store states it, MD5 sum.

        Raises:
            FileNotFoundError: if it was deleted or has changed since it was listed.
            TransferError: if it does not arrive whole in several tries.
            SourceError: if the store does not respond, or refuses.
        """
        return self.try_again(item.description, lambda: self._load(item))

    def load_head(self, item: StoredObject) -> bytes | None:
        """Load the first bytes of an object; None if it was deleted or has changed since it was listed."""
        if not item.bytes:
            return b""
        head_range = f"bytes=0-{HEAD_BYTES - 1}"
        try:
            return self.try_again(item.description, lambda: self._get_object(item, Range=head_range)[0])
        except FileNotFoundError:
            return None

    def upload(self, key: str, content: bytes) -> None:
        """Upload an object unless one of this key and size is there.

        Args:
            key: its key, which must name the content.
            content: its content.

        Raises:
            TransferError: if the store is overloaded or fails.
            SourceError: if it cannot be reached, or refuses.
        """
        with translate_s3_errors(self.name, anonymous=self.anonymous, writes=True):
            if self._size(key) != len(content):
                self._client.put_object(Bucket=self._bucket, Key=key, Body=content)

    def _size(self, key: str) -> int | None:
        """Size of an object; None if there is none."""
        try:
            return int(self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
                return None
            raise

    def request(self, item: StoredObject, **request: str) -> Mapping[str, Any]:
        """Request an object, or a range of it; the body is not read.

        Args:
            item: the object.
            **request: further parameters of ``get_object``, such as ``Range``.

        Returns:
            The response of boto3.

        Raises:
            ChangedObjectError: if the object was deleted or replaced since it was listed.
        """
        if item.etag:
            request["IfMatch"] = item.etag
        try:
            response: Mapping[str, Any] = self._client.get_object(Bucket=self._bucket, Key=item.key, **request)
        except ClientError as error:
            if error_code(error) not in CHANGED_OBJECT_CODES:
                raise
            raise ChangedObjectError(f"gone or changed since it was listed ({error_code(error)})") from error
        # Some stores do not compare the ETag themselves.
        difference = ""
        if item.etag and response.get("ETag", item.etag).strip('"') != item.etag:
            difference = "another ETag"
        elif not item.etag and not request and response["ContentLength"] != item.bytes:
            difference = f"{response['ContentLength']:,} bytes"
        if difference:
            response["Body"].close()
            raise ChangedObjectError(f"changed since it was listed ({difference})")
        return response

    def try_again(self, expected: str, transfer: Callable[[], Result]) -> Result:
        """Try a transfer, and try again after a growing pause if it breaks or brings other bytes.

        Args:
            expected: what is transferred, for the message.
            transfer: one try; it raises :class:`BrokenTransferError` if the next try may succeed.

        Returns:
            What the transfer returned.

        Raises:
            TransferError: if no try succeeds.
            SourceError: if the store cannot be reached, or refuses.
        """
        with translate_s3_errors(self.name, anonymous=self.anonymous):
            for attempt in range(MAX_ATTEMPTS):
                self.stopped.wait(FIRST_PAUSE * 2 ** (attempt - 1) if attempt else 0)
                try:
                    return transfer()
                except BrokenTransferError as error:
                    problem = error
            raise TransferError(
                f"expected {expected}, received source={self.name} with {MAX_ATTEMPTS} transfers that failed, the last "
                f"one by {problem}; run the same command again"
            ) from problem

    def _load(self, item: StoredObject) -> bytes:
        data, response = self._get_object(item)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if len(data) != item.bytes or not matches_etag(md5, item.etag or response_etag(response), response):
            raise BrokenTransferError(OTHER_BYTES)
        return data

    def _get_object(self, item: StoredObject, **request: str) -> tuple[bytes, Mapping[str, Any]]:
        """Load an object, or the range of it that the request names, and the response without its body."""
        response = self.request(item, **request)
        with name_broken_transfer():
            return bytes(response["Body"].read()), response

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


def response_etag(response: Mapping[str, Any]) -> str:
    """ETag of a response, without quotes; empty if it has none."""
    return str(response.get("ETag", "")).strip('"')


def matches_etag(md5: str, etag: str, response: Mapping[str, Any]) -> bool:
    """Compare with the ETag if it is an MD5 sum: for objects that were uploaded in one part, without an own key.

    Args:
        md5: hexadecimal MD5 sum of the received bytes.
        etag: ETag of the object.
        response: the response that brought them.

    Returns:
        Whether both are the same, or cannot be compared.
    """
    has_own_key = response.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in response
    return has_own_key or not _MD5_SUM.fullmatch(etag) or md5 == etag


@contextmanager
def name_broken_transfer() -> Iterator[None]:
    """Raise BrokenTransferError for a connection that breaks."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise BrokenTransferError(f"a connection that broke ({error})") from error


def _whole_pages(pages: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    try:
        yield from pages
    except ResponseParserError as error:
        raise BrokenTransferError(f"a damaged answer ({error})") from error

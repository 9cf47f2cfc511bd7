"""Clients of object storage that give up in seconds, and plain words for what they raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)

from cxr.errors import SourceError

WORKERS = 16
"""Connections of one client."""

INTERRUPTED = (ConnectionError, HTTPClientError, IncompleteReadError)
"""What a broken connection raises."""
FAILURES = (BotoCoreError, ClientError)
"""All that Amazon's libraries raise, whoever calls them."""
CHANGED = frozenset({"NoSuchKey", "PreconditionFailed", "412"})
"""Codes for an object that is not the listed one any more."""

_NO_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"})
_DENIED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled"})
_ABSENT = frozenset({"NoSuchBucket", "404"})
_LOG_IN = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


def connect(endpoint_url: str | None) -> tuple[Any, bool]:
    """Make an S3 client that gives up in seconds.

    Args:
        endpoint_url: address of the store; None takes ``AWS_ENDPOINT_URL`` or Amazon's.

    Returns:
        The client, and whether there are no credentials: its requests are then sent unsigned.
    """
    session = boto3.Session()
    anonymous = session.get_credentials() is None
    config = Config(
        connect_timeout=5,
        read_timeout=20,
        retries={"total_max_attempts": 2, "mode": "standard"},
        max_pool_connections=WORKERS,
        # Other stores than Amazon's may reject the checksums that boto3 adds by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **({"signature_version": UNSIGNED} if anonymous else {}),
    )
    return session.client("s3", endpoint_url=endpoint_url, config=config), anonymous


@contextmanager
def explained(name: str, *, anonymous: bool = False) -> Iterator[None]:
    """Turn what boto3 raises into sentences that say what to do.

    Args:
        name: address of the source, for the sentences.
        anonymous: whether requests are sent without credentials.

    Raises:
        SourceError: with the sentence.
    """
    try:
        yield
    except ClientError as error:
        raise SourceError(_refusal(error, name, anonymous)) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise SourceError(
            f"expected credentials for source={name}, received none or half of them ({error}); {_LOG_IN}"
        ) from error
    except INTERRUPTED as error:
        raise SourceError(
            f"could not reach the object store of source={name}: no network, or a wrong "
            f"endpoint_url ({error}); check both, or take another source (a folder, an archive, phantom)"
        ) from error
    except (BotoCoreError, ValueError) as error:
        raise SourceError(
            f"expected a working configuration for source={name}, received {error}; correct "
            "endpoint_url or the AWS_... settings"
        ) from error


def code_of(error: ClientError) -> str:
    """Read the code of a refusal.

    Args:
        error: what boto3 raised.

    Returns:
        For example ``"AccessDenied"``; empty if there is none.
    """
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(error: ClientError, name: str, anonymous: bool) -> str:
    code = code_of(error)
    if code in _ABSENT:
        return f"expected a bucket that exists, received source={name} ({code}); check name and endpoint_url"
    if code in _NO_KEY:
        return f"expected credentials that the store knows, received source={name} ({code}); {_LOG_IN}"
    if code in _DENIED and anonymous:
        return f"expected credentials for source={name}, which is not public, received none; {_LOG_IN}"
    if code in _DENIED:
        return (
            f"expected leave to list and read, received source={name} ({code}); ask its owner for "
            "s3:ListBucket and s3:GetObject"
        )
    return f"expected an answer, received source={name} with a refusal ({error}); run it again"

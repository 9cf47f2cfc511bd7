"""Creates S3 clients with short timeouts, and translates their errors into sentences."""

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
from botocore.parsers import ResponseParserError

from cxr.errors import SourceError, TransferError

MAX_CONNECTIONS = 16
"""Connections of one client, and so the number of parallel downloads."""
MAX_ATTEMPTS = 5
"""How often a request is sent, and how often the content of an object is read, until one of them succeeds."""

CONNECTION_ERRORS = (ConnectionError, HTTPClientError, IncompleteReadError)
"""Errors of a broken connection."""
AWS_ERRORS = (BotoCoreError, ClientError)
"""All errors of boto3 and botocore, also where another library calls them."""
CHANGED_OBJECT_CODES = frozenset({"NoSuchKey", "PreconditionFailed", "412"})
"""Error codes for an object that was deleted or replaced after it was listed."""

_OVERLOADED_STATUS = frozenset({429, 500, 502, 503, 504})
_WRONG_KEY_CODES = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"})
_ACCESS_DENIED_CODES = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled"})
_NO_BUCKET_CODES = frozenset({"NoSuchBucket", "404"})
_LOGIN_HINT = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


def create_s3_client(endpoint_url: str | None) -> tuple[Any, bool]:
    """Create an S3 client that repeats requests with growing pauses, and gives up within half a minute.

    It repeats what can pass: no connection, a broken one, an overloaded store.

    Args:
        endpoint_url: address of the store; None takes ``AWS_ENDPOINT_URL`` or Amazon's.

    Returns:
        The client, and whether there are no credentials. Without credentials it sends its requests unsigned.
    """
    session = boto3.Session()
    anonymous = session.get_credentials() is None
    config = Config(
        connect_timeout=5,
        read_timeout=20,
        retries={"total_max_attempts": MAX_ATTEMPTS, "mode": "standard"},
        max_pool_connections=MAX_CONNECTIONS,
        # Stores other than Amazon's may reject the checksums that boto3 adds by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **({"signature_version": UNSIGNED} if anonymous else {}),
    )
    return session.client("s3", endpoint_url=endpoint_url, config=config), anonymous


@contextmanager
def translate_s3_errors(name: str, *, anonymous: bool = False, writes: bool = False) -> Iterator[None]:
    """Translate the errors of boto3 into sentences that say what to do.

    Args:
        name: address of the source, for the sentences.
        anonymous: whether requests are sent without credentials.
        writes: whether objects are written, which needs other rights than reading.

    Raises:
        TransferError: if the store answers, but is overloaded or fails.
        SourceError: in place of any other error of boto3.
    """
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status in _OVERLOADED_STATUS:
            raise TransferError(
                f"expected an answer from the object store, received source={name} with HTTP status {status} "
                f"({error_code(error)}) in each of {MAX_ATTEMPTS} tries: the store is overloaded or fails; run the "
                "same command again later"
            ) from error
        raise SourceError(_describe_client_error(error, name, anonymous, writes)) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise SourceError(
            f"expected credentials for source={name}, received none or half of them ({error}); {_LOGIN_HINT}"
        ) from error
    except (HTTPClientError, IncompleteReadError, ResponseParserError) as error:
        raise SourceError(
            f"could not reach the object store of source={name}: it closed the connection, stayed silent or sent a "
            f"damaged answer, however often it was asked ({error}); run the same command again later"
        ) from error
    except ConnectionError as error:
        raise SourceError(
            f"could not reach the object store of source={name}: no network, or a wrong "
            f"endpoint_url ({error}); check both, or take another source (a folder, an archive, phantom)"
        ) from error
    except (BotoCoreError, ValueError) as error:
        raise SourceError(
            f"expected a working configuration for source={name}, received {error}; correct "
            "endpoint_url or the AWS_... settings"
        ) from error


def error_code(error: ClientError) -> str:
    """Return the code of an error response.

    Args:
        error: error of boto3.

    Returns:
        For example ``"AccessDenied"``; empty if there is none.
    """
    return str(error.response.get("Error", {}).get("Code", ""))


def _describe_client_error(error: ClientError, name: str, anonymous: bool, writes: bool) -> str:
    code = error_code(error)
    if code in _NO_BUCKET_CODES:
        return f"expected a bucket that exists, received source={name} ({code}); check name and endpoint_url"
    if code in _WRONG_KEY_CODES:
        return f"expected credentials that the store knows, received source={name} ({code}); {_LOGIN_HINT}"
    if code in _ACCESS_DENIED_CODES and anonymous:
        return f"expected credentials for source={name}, which is not public, received none; {_LOGIN_HINT}"
    if code in _ACCESS_DENIED_CODES:
        use, rights = ("write", "s3:PutObject") if writes else ("list and read", "s3:ListBucket and s3:GetObject")
        return f"expected permission to {use}, received source={name} ({code}); ask its owner for {rights}"
    return f"expected a response, received source={name} with an error ({error}); run it again"

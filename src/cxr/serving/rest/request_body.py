"""Receives the body of a request within limits of size and time, checks its type, and finds the images in it."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from cxr.errors import ImageError
from cxr.serving.rest.middleware import CLOSE_CONNECTION
from cxr.serving.rest.problems import ProblemError
from cxr.serving.rest.schemas import ImagesRequest, KServeRequest
from cxr.serving.rest.settings import MEBIBYTE, RequestLimits

if TYPE_CHECKING:
    from starlette.requests import Request

JSON_TYPE = "application/json"
IMAGE_TYPES = ("image/jpeg", "image/png", "application/dicom", "application/octet-stream")
_MAX_QUOTED_CHARACTERS = 80
_DISCARD_SECONDS = 2.0
_DISCARD_FACTOR = 4

Body = TypeVar("Body", ImagesRequest, KServeRequest)


def check_content_type(request: Request, accepted: Sequence[str]) -> str:
    """Check the type of a body.

    Args:
        request: the request.
        accepted: the accepted types.

    Returns:
        The type, without parameters, in lower case.

    Raises:
        ProblemError: 415 if it is another one, or the body is compressed.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if content_type not in accepted or encoding != "identity":
        received = f"{content_type} {encoding}"[:_MAX_QUOTED_CHARACTERS]
        printable = "".join(character for character in received if character.isprintable())
        raise ProblemError(
            415,
            "wrong_type",
            f"expected Content-Type: {', '.join(accepted)}, not compressed, received {printable!r}",
            {"Accept": ", ".join(accepted), **CLOSE_CONNECTION},
        )
    return content_type


async def read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """Receive a body.

    Args:
        request: the request.
        max_bytes: most bytes.
        seconds: longest time that it may take.

    Returns:
        The body.

    Raises:
        ProblemError: 413 if it is larger, 408 if it takes longer.
        ClientDisconnect: if the client closes the connection.
    """
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > max_bytes:
        if request.headers.get("expect", "").lower() != "100-continue":
            await _discard_body(request, max_bytes)
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    await _discard_body(request, max_bytes)
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise ProblemError(
            408, "too_slow", f"expected the whole request within {seconds:g} s; send it again", CLOSE_CONNECTION
        ) from None
    return bytes(body)


async def _discard_body(request: Request, max_bytes: int) -> None:
    """Read on for a short time: a client that is still sending when the connection closes never reads the response."""
    remaining = _DISCARD_FACTOR * max_bytes
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            async for chunk in request.stream():
                remaining -= len(chunk)
                if remaining < 0:
                    break


def _too_large(max_bytes: int) -> ProblemError:
    limit = f"{max_bytes / MEBIBYTE:g} MiB" if max_bytes >= MEBIBYTE else f"{max_bytes} bytes"
    return ProblemError(413, "too_large", f"expected at most {limit} a request; send fewer images", CLOSE_CONNECTION)


def parse_images(body: bytes, content_type: str, limits: RequestLimits) -> list[bytes | ImageError]:
    """Find the images in a body.

    Args:
        body: the body.
        content_type: its type; :data:`JSON_TYPE` holds several images, any other type is one image.
        limits: limits of the request.

    Returns:
        The content of each image, or why it has none.

    Raises:
        ProblemError: 422 if the JSON does not match the schema, 413 if there are too many images.
    """
    if content_type != JSON_TYPE:
        return [body]
    return _decode_images(_validate(ImagesRequest, body).images, limits)


def parse_kserve_instances(body: bytes, limits: RequestLimits) -> list[bytes | ImageError]:
    """Find the images in a body of KServe's V1 protocol.

    Args:
        body: the body.
        limits: limits of the request.

    Returns:
        The content of each image, or why it has none.

    Raises:
        ProblemError: 422 if the JSON does not match the schema, 413 if there are too many images.
    """
    return _decode_images([instance.b64 for instance in _validate(KServeRequest, body).instances], limits)


def _validate(schema: type[Body], body: bytes) -> Body:
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        location = ".".join(map(str, first["loc"])) or "body"
        raise ProblemError(
            422, "malformed", f"{location[:_MAX_QUOTED_CHARACTERS]}: {first['msg']}; see /openapi.json"
        ) from None


def _decode_images(texts: Sequence[str], limits: RequestLimits) -> list[bytes | ImageError]:
    if len(texts) > limits.images:
        raise ProblemError(
            413, "too_many", f"expected at most {limits.images} images a request, received images={len(texts)}"
        )
    return [_decode_base64(text) for text in texts]


def _decode_base64(text: str) -> bytes | ImageError:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return ImageError("not_base64", "expected the image in base64")

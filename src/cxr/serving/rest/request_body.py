"""Receives the body of a request within limits of size and time, checks its type, and finds the images in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from cxr.errors import ImageError
from cxr.images.base64_text import decode_base64
from cxr.serving.rest.middleware import CLOSE_CONNECTION
from cxr.serving.rest.problems import ProblemError
from cxr.serving.rest.schemas import ImagesRequest, KServeRequest
from cxr.serving.rest.settings import MEBIBYTE, RequestLimits

if TYPE_CHECKING:
    from starlette.requests import Request

JSON_TYPE = "application/json"
IMAGE_TYPES = ("image/jpeg", "image/png", "application/dicom", "application/octet-stream")
_OTHER_NAMES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "binary/octet-stream": "application/octet-stream",
}
"""Unregistered names of types, as some clients and object stores send them, to the accepted name."""
_TYPE_ADVICE = {
    "": "name the type of the body",
    "application/x-www-form-urlencoded": "curl sends this type if no other is named",
    "multipart/form-data": "forms, as curl's --form makes them, are not read; send one image, or several as JSON",
}
IMAGE_COMMAND = 'curl --data-binary @image.jpeg --header "Content-Type: image/jpeg" http://HOST:PORT/v1/predictions'
"""A command that sends one image. The shells of Linux, macOS and Windows understand it."""
KSERVE_COMMAND = (
    'curl --data-binary @images.json --header "Content-Type: application/json" http://HOST:PORT/v1/models/NAME:predict'
)
"""A command that sends a file with images in KServe's V1 protocol."""
_MAX_QUOTED_CHARACTERS = 80
_DISCARD_SECONDS = 2.0
_DISCARD_FACTOR = 4

Body = TypeVar("Body", ImagesRequest, KServeRequest)


def check_content_type(request: Request, accepted: Sequence[str], example: str) -> str:
    """Check the type of a body.

    Args:
        request: the request.
        accepted: the accepted types.
        example: a command that sends the right type, for the error.

    Returns:
        The type, without parameters, in lower case and by its registered name.

    Raises:
        ProblemError: 415 if it is another one, or the body is compressed.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    content_type = _OTHER_NAMES.get(content_type, content_type)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    problems = []
    if content_type not in accepted:
        advice = f" ({_TYPE_ADVICE[content_type]})" if content_type in _TYPE_ADVICE else ""
        problems.append(
            f"expected Content-Type: {', '.join(accepted)}, received {_quote('Content-Type', content_type)}{advice}"
        )
    if encoding not in ("", "identity"):
        problems.append(
            f"expected a body without Content-Encoding, received {_quote('Content-Encoding', encoding)}; "
            "send it uncompressed, and leave the header out"
        )
    if problems:
        raise ProblemError(
            415,
            "wrong_type",
            f"{'; '.join(problems)}; for example: {example}",
            {"Accept": ", ".join(accepted), "Accept-Encoding": "identity", **CLOSE_CONNECTION},
        )
    return content_type


def _quote(header: str, value: str) -> str:
    printable = "".join(character for character in value[:_MAX_QUOTED_CHARACTERS] if character.isprintable())
    return f"{header}={printable!r}" if value else f"no {header}"


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
            await _discard_body(request.stream(), max_bytes)
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            stream = request.stream()
            async for chunk in stream:
                body += chunk
                if len(body) > max_bytes:
                    await _discard_body(stream, max_bytes)
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise ProblemError(
            408, "too_slow", f"expected the whole request within {seconds:g} s; send it again", CLOSE_CONNECTION
        ) from None
    return bytes(body)


async def _discard_body(stream: AsyncIterator[bytes], max_bytes: int) -> None:
    """Read on for a short time: a client that is still sending when the connection closes never reads the response."""
    remaining = _DISCARD_FACTOR * max_bytes
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            async for chunk in stream:
                remaining -= len(chunk)
                if remaining < 0:
                    break


def _too_large(max_bytes: int) -> ProblemError:
    limit = f"{max_bytes / MEBIBYTE:g} MiB" if max_bytes >= MEBIBYTE else f"{max_bytes} bytes"
    return ProblemError(
        413,
        "too_large",
        f"expected at most {limit} a request; send fewer images at once, or raise serve.max_megabytes",
        CLOSE_CONNECTION,
    )


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
    return _decode_images(_validate(ImagesRequest, body).images, "images.{}", limits)


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
    texts = [instance.b64 for instance in _validate(KServeRequest, body).instances]
    return _decode_images(texts, "instances.{}.b64", limits)


def _validate(schema: type[Body], body: bytes) -> Body:
    encoding = json.detect_encoding(body)
    try:
        # Programs of Windows write UTF-16, or UTF-8 with a mark before the text.
        return schema.model_validate_json(body if encoding == "utf-8" else body.decode(encoding))
    except UnicodeDecodeError:
        raise ProblemError(422, "malformed", "body: expected JSON in UTF-8; see /openapi.json") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        location = ".".join(map(str, first["loc"])) or "body"
        message = first["msg"]
        if "control character" in message:
            message += ", such as a line break inside a text: write each text in one line"
        raise ProblemError(
            422, "malformed", f"{location[:_MAX_QUOTED_CHARACTERS]}: {message}; see /openapi.json"
        ) from None


def _decode_images(texts: Sequence[str], location: str, limits: RequestLimits) -> list[bytes | ImageError]:
    """Decode base64. ``location`` has a place for the number of the text, from 0."""
    if len(texts) > limits.images:
        raise ProblemError(
            413,
            "too_many",
            f"expected at most {limits.images} images a request, received images={len(texts)}; "
            "send the others in another request",
        )
    images: list[bytes | ImageError] = []
    for number, text in enumerate(texts):
        try:
            images.append(decode_base64(text))
        except ImageError as error:
            images.append(ImageError(error.problem, f"{location.format(number)}: {error.detail}"))
    return images

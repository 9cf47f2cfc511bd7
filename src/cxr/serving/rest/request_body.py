"""Taking a request in: the body counted and timed while it comes, its type, and the images that it holds."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from cxr.errors import ImageError
from cxr.serving.rest.problems import Problem
from cxr.serving.rest.schemas import Images, Instances
from cxr.serving.rest.settings import MEBIBYTE, Limits

if TYPE_CHECKING:
    from starlette.requests import Request

JSON = "application/json"
IMAGE_TYPES = ("image/jpeg", "image/png", "application/dicom", "application/octet-stream")
COME_AGAIN = 1
"""Seconds after which a client that found all places taken may come again."""
_CLOSE = {"Connection": "close"}
_LONGEST_TYPE = 80
_LINGER = 2.0

M = TypeVar("M", Images, Instances)


class Places:
    """Places for requests that have come and are not yet answered; their number bounds the memory."""

    def __init__(self, count: int) -> None:
        """Take note of the number.

        Args:
            count: most requests at once.
        """
        self._count = count
        self.taken = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Take a place for the length of the block.

        Raises:
            Problem: 503 if all are taken.
        """
        if self.taken >= self._count:
            raise Problem(
                503,
                "overloaded",
                f"expected at most {self._count} requests at once; come again after {COME_AGAIN} s",
                {"Retry-After": str(COME_AGAIN), **_CLOSE},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


def content_type(request: Request, known: Sequence[str]) -> str:
    """Find out what a body holds.

    Args:
        request: the request.
        known: types that are taken.

    Returns:
        One of them.

    Raises:
        Problem: 415 if it is another one, or compressed.
    """
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if found not in known or coding != "identity":
        received = "".join(letter for letter in f"{found} {coding}"[:_LONGEST_TYPE] if letter.isprintable())
        raise Problem(
            415,
            "wrong_type",
            f"expected Content-Type: {', '.join(known)}, not compressed, received {received!r}",
            {"Accept": ", ".join(known), **_CLOSE},
        )
    return found


async def take_in(request: Request, most: int, seconds: float) -> bytes:
    """Receive a body.

    Args:
        request: the request.
        most: most bytes.
        seconds: longest time that it may take.

    Returns:
        The body.

    Raises:
        Problem: 413 if it is larger, 408 if it takes longer.
        ClientDisconnect: if the client went away.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > most:
        if request.headers.get("expect", "").lower() != "100-continue":
            await _let_finish(request, most)
        raise _too_large(most)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    await _let_finish(request, most)
                    raise _too_large(most)
    except TimeoutError:
        raise Problem(
            408, "too_slow", f"expected the whole request within {seconds:g} s; send it again", _CLOSE
        ) from None
    return bytes(body)


async def _let_finish(request: Request, most: int) -> None:
    """Let a client finish that is quick: one that still sends when the connection closes reads no answer."""
    left = 4 * most
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            async for piece in request.stream():
                left -= len(piece)
                if left < 0:
                    break


def _too_large(most: int) -> Problem:
    limit = f"{most / MEBIBYTE:g} MiB" if most >= MEBIBYTE else f"{most} bytes"
    return Problem(413, "too_large", f"expected at most {limit} a request; send fewer images", _CLOSE)


def images_of(body: bytes, kind: str, limits: Limits) -> list[bytes | ImageError]:
    """Find the images of a body.

    Args:
        body: the body.
        kind: its type.
        limits: bounds on it.

    Returns:
        The content of each image, or why there is none.

    Raises:
        Problem: 422 if it isn't as described.
    """
    if kind != JSON:
        return [body]
    return _decoded(_valid(Images, body).images, limits)


def instances_of(body: bytes, limits: Limits) -> list[bytes | ImageError]:
    """Find the images of a body in KServe's first protocol.

    Args:
        body: the body.
        limits: bounds on it.

    Returns:
        The content of each image, or why there is none.

    Raises:
        Problem: 422 if it isn't as described.
    """
    return _decoded([one.b64 for one in _valid(Instances, body).instances], limits)


def _valid(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise Problem(422, "malformed", f"{place[:_LONGEST_TYPE]}: {first['msg']}; see /openapi.json") from None


def _decoded(texts: Sequence[str], limits: Limits) -> list[bytes | ImageError]:
    if len(texts) > limits.images:
        raise Problem(
            413, "too_many", f"expected at most {limits.images} images a request, received images={len(texts)}"
        )
    return [_image(text) for text in texts]


def _image(text: str) -> bytes | ImageError:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return ImageError("not_base64", "expected the image in base64")

"""Base64 is read as clients write it, and an error says what is wrong with a text that is none."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

import numpy as np
import pytest

from cxr.errors import ImageError
from cxr.images.base64_text import decode_base64

DATA = np.random.default_rng(0).integers(0, 256, 1000).astype(np.uint8).tobytes()
TEXT = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "write",
    [
        lambda data: base64.b64encode(data).decode(),
        lambda data: base64.encodebytes(data).decode(),
        lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
        lambda data: base64.urlsafe_b64encode(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
        lambda data: base64.b64encode(data).decode().rstrip("="),
        lambda data: f"data:image/png;base64,{base64.b64encode(data).decode()}",
        lambda data: f" Data:application/dicom;name=a;BASE64,{base64.encodebytes(data).decode()}",
        lambda data: "data:;base64," + base64.b64encode(data).decode().replace("+", "%2B").replace("=", "%3D"),
        lambda data: f"-----BEGIN CERTIFICATE-----\r\n{base64.encodebytes(data).decode()}-----END CERTIFICATE-----\r\n",
    ],
)
@pytest.mark.parametrize("length", [0, 997, 998, 999, 1000])
def test_the_ways_to_write_base64_give_the_same_bytes(write: Callable[[bytes], str], length: int) -> None:
    assert {"+", "/"} < set(TEXT)
    assert decode_base64(write(DATA[:length])) == DATA[:length]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no-base64!", "characters that base64 does not have"),
        ("bödy", "a character that is not ASCII"),
        (TEXT[:401], "401 characters: at least one is missing"),
        ("AA==AA==", "text behind the end mark"),
        ("AA+_", "both alphabets"),
        ("data:image/png,AAAA", "without ';base64,'"),
        ("data:image/png;base64;AAAA", "without ';base64,'"),
        ("-----BEGIN IMAGE-----AAAA", "without its line '-----END"),
        ("AA+A".replace("+", " "), "may have been a '+'"),
    ],
)
def test_an_error_says_what_is_wrong_with_the_text(text: str, message: str) -> None:
    with pytest.raises(ImageError, match=re.escape(message)) as raised:
        decode_base64(text)
    assert raised.value.problem == "not_base64"
    assert "expected the image in base64, received " in raised.value.detail

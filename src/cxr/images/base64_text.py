"""Images that arrive as text in base64, as shells, mail programs, browsers and web libraries write it."""

from __future__ import annotations

import base64
import re
import string
from urllib.parse import unquote

from cxr.errors import ImageError

_ARMOR = re.compile(r"-----BEGIN ([^-]*)-----(.*)-----END \1-----", re.DOTALL)
"""Lines around the text, as ``certutil -encode`` of Windows writes them."""
_ALPHABET = f"{string.ascii_letters}{string.digits}+/".encode()
_URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """Decode an image in base64.

    Line breaks, the head of a data URL (``data:image/png;base64,``), lines around the text (``-----BEGIN ...-----``),
    the URL-safe alphabet (RFC 4648, section 5) and missing padding are accepted.

    Args:
        text: the text.

    Returns:
        The bytes that it stands for; none for an empty text.

    Raises:
        ImageError: ``"not_base64"`` if the text is damaged or something else.
    """
    encoded = _strip_wrapping(text.strip())
    try:
        data = encoded.encode("ascii").translate(None, b"\r\n")
    except UnicodeEncodeError:
        raise _not_base64("a character that is not ASCII") from None
    if b"-" in data or b"_" in data:
        if b"+" in data or b"/" in data:
            raise _not_base64("the characters of both alphabets, '+' or '/' beside '-' or '_'; use one of them")
        data = data.translate(_URL_SAFE_TO_STANDARD)
    digits = data.rstrip(b"=")
    if b" " in digits:
        raise _not_base64("a space, which may have been a '+': send it as JSON, not as a form or part of an address")
    if digits.translate(None, _ALPHABET + b"="):
        raise _not_base64("characters that base64 does not have; encode the content of the file")
    if b"=" in digits:
        raise _not_base64("more text behind the end mark '='; write each image as a text of its own")
    if len(digits) % 4 == 1:
        raise _not_base64(f"{len(digits)} characters: at least one is missing or too many; encode the whole file again")
    return base64.b64decode(digits + b"=" * (-len(digits) % 4))


def _strip_wrapping(text: str) -> str:
    """Take the text out of a data URL, or from between the lines around it."""
    if text[:5].lower() == "data:":
        head, _, encoded = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise _not_base64("a data URL without ';base64,' before its content; write 'data:image/png;base64,'")
        return unquote(encoded)
    if text.startswith("-----BEGIN "):
        armored = _ARMOR.fullmatch(text)
        if armored is None:
            raise _not_base64("a line '-----BEGIN ...-----' without its line '-----END ...-----'; send the whole text")
        return armored[2]
    return text


def _not_base64(received: str) -> ImageError:
    return ImageError("not_base64", f"expected the image in base64, received {received}")

"""Signatures of webhook messages: whether a message comes from the server that shares our secret, and is recent."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cxr.errors import ParameterError, SignatureError

SIGNATURE_HEADER = "X-MLflow-Signature"
DELIVERY_HEADER = "X-MLflow-Delivery-Id"
TIMESTAMP_HEADER = "X-MLflow-Timestamp"
SIGNATURE_PREFIX = "v1,"
MAX_AGE_SECONDS = 300.0
"""Seconds that a message may be old, or ahead of this machine's clock."""
MIN_SECRET_LENGTH = 16
"""Characters; a shorter secret could be guessed by trying."""


@dataclass(frozen=True)
class WebhookEvent:
    """One message of the server whose signature was checked.

    Attributes:
        event: name of the event, e.g. ``"model_version_alias.created"``.
        data: its details, e.g. ``name``, ``alias`` and ``version``.
        repeated: whether it was received before: a server that got no response sends a message again.
    """

    event: str
    data: dict[str, Any]
    repeated: bool = False


class SignatureCheck:
    """Checks messages against a secret; forged, altered or old messages are refused."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        """Keep the secret.

        Args:
            secret: the key with which the server signs.
            clock: returns the seconds since 1970.
        """
        self._secret = secret.encode()
        self._clock = clock
        self._received: dict[str, float] = {}
        self._lock = threading.Lock()

    def check(
        self, body: bytes, *, signature: str | None, delivery_id: str | None, timestamp: str | None
    ) -> WebhookEvent:
        """Check a message and read it.

        Args:
            body: the request's body, exactly as it was received.
            signature: header :data:`SIGNATURE_HEADER`, None if there was none.
            delivery_id: header :data:`DELIVERY_HEADER`.
            timestamp: header :data:`TIMESTAMP_HEADER`, seconds since 1970.

        Returns:
            The event.

        Raises:
            SignatureError: if a header is missing, the signature does not match, or the message is not recent.
        """
        if not signature or not delivery_id or not timestamp:
            raise SignatureError(
                f"expected the headers {SIGNATURE_HEADER}, {DELIVERY_HEADER} and {TIMESTAMP_HEADER}, received not all "
                "of them; register the webhook with a secret (`cxr webhook`)"
            )
        signed = f"{delivery_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
        expected = SIGNATURE_PREFIX.encode() + base64.b64encode(hmac.new(self._secret, signed, hashlib.sha256).digest())
        if not hmac.compare_digest(expected, signature.encode("utf-8", "surrogateescape")):
            raise SignatureError(
                f"expected a signature with our secret, received another {SIGNATURE_HEADER}; "
                "the message is forged or altered, or the webhook was registered with another secret"
            )
        now = self._clock()
        if not abs(now - _seconds(timestamp)) <= MAX_AGE_SECONDS:
            raise SignatureError(
                f"expected a message of the last {MAX_AGE_SECONDS:.0f} s, received {TIMESTAMP_HEADER}={timestamp}; "
                "a stranger has sent it again, or a clock is wrong"
            )
        return self._read(body, repeated=self._was_received(delivery_id, now))

    def _was_received(self, delivery_id: str, now: float) -> bool:
        with self._lock:
            # Ids whose messages would be refused as too old are removed, so that this stays small.
            self._received = {known: until for known, until in self._received.items() if until >= now}
            repeated = delivery_id in self._received
            self._received[delivery_id] = now + 2 * MAX_AGE_SECONDS
        return repeated

    def _read(self, body: bytes, *, repeated: bool) -> WebhookEvent:
        try:
            message = json.loads(body)
            return WebhookEvent(f"{message['entity']}.{message['action']}", dict(message["data"]), repeated)
        except (ValueError, KeyError, TypeError) as error:
            raise SignatureError(
                f"expected an event in MLflow's form, received a signed body without: {error!r}"
            ) from error


def _seconds(text: str) -> float:
    """Time of a header; NaN, which is never recent, if it is no number."""
    return float(text) if text.isascii() and text.isdigit() else math.nan


def read_secret(variable: str) -> str | None:
    """Read the secret with which messages are signed.

    Args:
        variable: name of the environment variable.

    Returns:
        The secret; None if the variable is not set or empty.

    Raises:
        ParameterError: if the secret is too short.
    """
    secret = os.environ.get(variable, "").strip()
    if secret and len(secret) < MIN_SECRET_LENGTH:
        problem = f"expected a secret of at least {MIN_SECRET_LENGTH} characters, received {len(secret)} in {variable}"
        raise ParameterError([f"{problem}; make one with `openssl rand -hex 32`"])
    return secret or None

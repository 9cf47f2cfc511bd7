"""Signatures of webhook deliveries: whether a message comes from the server that shares our secret, and now."""

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
SCHEME = "v1,"
TOLERANCE = 300.0
"""Seconds that a delivery may be old, or ahead of this machine's clock."""
SHORTEST_SECRET = 16
"""Characters; shorter ones could be found by trying."""


@dataclass(frozen=True)
class Delivery:
    """One message of the server, its signature checked.

    Attributes:
        event: what happened, e.g. ``"model_version_alias.created"``.
        data: what it happened to, e.g. ``name``, ``alias`` and ``version``.
        repeated: whether it was received before: servers send again what they got no answer for.
    """

    event: str
    data: dict[str, Any]
    repeated: bool = False


class SignatureCheck:
    """Checks deliveries against a secret; messages that are forged, altered or old are refused."""

    def __init__(self, secret: str, tolerance: float = TOLERANCE, clock: Callable[[], float] = time.time) -> None:
        """Keep the secret.

        Args:
            secret: what the server signs with.
            tolerance: seconds that a delivery may be old, or ahead of the clock.
            clock: gives the seconds since 1970.
        """
        self._secret = secret.encode()
        self._tolerance = tolerance
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()

    def check(self, body: bytes, *, signature: str | None, delivery_id: str | None, timestamp: str | None) -> Delivery:
        """Check a delivery and read it.

        Args:
            body: the request's body, exactly as it was received.
            signature: header :data:`SIGNATURE_HEADER`, None if there was none.
            delivery_id: header :data:`DELIVERY_HEADER`.
            timestamp: header :data:`TIMESTAMP_HEADER`, seconds since 1970.

        Returns:
            The delivery.

        Raises:
            SignatureError: if a header is missing, the signature is another one, or the message isn't of now.
        """
        if not signature or not delivery_id or not timestamp:
            raise SignatureError(
                f"expected the headers {SIGNATURE_HEADER}, {DELIVERY_HEADER} and {TIMESTAMP_HEADER}, received not all "
                "of them; register the webhook with a secret (`cxr webhook`)"
            )
        signed = f"{delivery_id}.{timestamp}.".encode("utf-8", "surrogateescape") + body
        wanted = SCHEME.encode() + base64.b64encode(hmac.new(self._secret, signed, hashlib.sha256).digest())
        if not hmac.compare_digest(wanted, signature.encode("utf-8", "surrogateescape")):
            raise SignatureError(
                f"expected a signature with our secret, received another {SIGNATURE_HEADER}; "
                "the message is forged or altered, or the webhook was registered with another secret"
            )
        now = self._clock()
        if not abs(now - _seconds(timestamp)) <= self._tolerance:
            raise SignatureError(
                f"expected a message of the last {self._tolerance:.0f} s, received {TIMESTAMP_HEADER}={timestamp}; "
                "it is repeated by a stranger, or a clock is wrong"
            )
        return self._read(body, repeated=self._seen_before(delivery_id, now))

    def _seen_before(self, delivery_id: str, now: float) -> bool:
        with self._lock:
            # Older ones are refused by their time, so that this stays small.
            self._seen = {one: until for one, until in self._seen.items() if until >= now}
            known = delivery_id in self._seen
            self._seen[delivery_id] = now + 2 * self._tolerance
        return known

    def _read(self, body: bytes, *, repeated: bool) -> Delivery:
        try:
            message = json.loads(body)
            return Delivery(f"{message['entity']}.{message['action']}", dict(message["data"]), repeated)
        except (ValueError, KeyError, TypeError) as error:
            raise SignatureError(
                f"expected an event in MLflow's form, received a signed body without: {error!r}"
            ) from error


def _seconds(text: str) -> float:
    """Time of a header; NaN, which is never of now, if it is none."""
    return float(text) if text.isascii() and text.isdigit() else math.nan


def secret_of(variable: str) -> str | None:
    """Read the secret that deliveries are signed with.

    Args:
        variable: name of the environment variable.

    Returns:
        The secret, None if the variable is not set or empty.

    Raises:
        ParameterError: if the secret is too short.
    """
    secret = os.environ.get(variable, "").strip()
    if secret and len(secret) < SHORTEST_SECRET:
        problem = f"expected a secret of at least {SHORTEST_SECRET} characters, received {len(secret)} in {variable}"
        raise ParameterError([f"{problem}; make one with `openssl rand -hex 32`"])
    return secret or None

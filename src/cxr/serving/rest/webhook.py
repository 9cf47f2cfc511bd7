"""News of the tracking server: a signed message wakes the watchers, anything else does nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from cxr.errors import SignatureError
from cxr.serving.rest.problems import Problem
from cxr.tracking.webhook_signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, SignatureCheck
from cxr.tracking.webhooks import EVENTS

log = logging.getLogger(__name__)

LARGEST = 64 * 1024
"""Bytes of a message; MLflow's have a few hundred."""
SLOWEST = 10.0
"""Seconds that a message may take to come."""


class News:
    """Takes messages about the registered model."""

    def __init__(self, registered_name: str, wake: Callable[[], None], signatures: SignatureCheck | None) -> None:
        """Take note of whom to wake.

        Args:
            registered_name: name of the registered model; empty for a model of a folder.
            wake: called when one of its aliases has moved.
            signatures: checks messages; None refuses all of them.
        """
        self._registered_name, self._wake, self._signatures = registered_name, wake, signatures

    def signatures(self) -> SignatureCheck:
        """Refuse a message before it is read, where none is taken.

        Returns:
            What checks it.

        Raises:
            Problem: 403, saying what is missing.
        """
        if not self._registered_name:
            raise Problem(403, "no_registry", "a model of a folder answers here: messages of a registry are not taken")
        if self._signatures is None:
            raise Problem(403, "no_secret", "no secret is set here: messages are not taken")
        return self._signatures

    def take(self, body: bytes, headers: Mapping[str, str], sender: str) -> bool:
        """Take a message.

        Args:
            body: exactly as it was received.
            headers: headers of the request.
            sender: its address, for the log.

        Returns:
            Whether it was about our model, and somebody was woken.

        Raises:
            Problem: 401 if it isn't signed with our secret, or is old; 403 if none is taken.
        """
        try:
            delivery = self.signatures().check(
                body,
                signature=headers.get(SIGNATURE_HEADER),
                delivery_id=headers.get(DELIVERY_HEADER),
                timestamp=headers.get(TIMESTAMP_HEADER),
            )
        except SignatureError as error:
            log.warning("message from %s refused: %s", sender, error)
            raise Problem(401, "bad_signature", "expected a message of now with a valid signature") from None
        ours = delivery.data.get("name") == self._registered_name
        done = ours and delivery.event in EVENTS and not delivery.repeated
        if done:
            self._wake()
        return done

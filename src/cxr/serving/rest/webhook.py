"""Receives MLflow's webhooks: a signed message about an alias of a served model wakes the watchers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from cxr.errors import SignatureError
from cxr.serving.rest.problems import ProblemError
from cxr.tracking.webhook_signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, SignatureCheck
from cxr.tracking.webhooks import EVENTS

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 * 1024
"""Largest message; MLflow's messages have a few hundred bytes."""
MAX_MESSAGE_SECONDS = 10.0
"""Longest time that a message may take to arrive."""


class WebhookReceiver:
    """Checks messages about the registered models: the classifier, and the detector if there is one."""

    def __init__(
        self, registered_names: Sequence[str], wake: Callable[[], None], signatures: SignatureCheck | None
    ) -> None:
        """Connect the receiver.

        Args:
            registered_names: names of the registered models that are followed; none if all come from folders.
            wake: called when an alias of one of the models has moved.
            signatures: checks the messages; None rejects all of them.
        """
        self._registered_names = frozenset(registered_names)
        self._wake, self._signatures = wake, signatures

    def require_signatures(self) -> SignatureCheck:
        """Reject a message before it is read if the service accepts none.

        Returns:
            The check of signatures.

        Raises:
            ProblemError: 403, with what is missing.
        """
        if not self._registered_names:
            raise ProblemError(
                403,
                "no_registry",
                "messages are not accepted, because the model comes from a folder; "
                "start the service with a registered model",
            )
        if self._signatures is None:
            raise ProblemError(
                403,
                "no_secret",
                "messages are not accepted, because the service has no secret; "
                "start it with the environment variable that serve.secret_variable names",
            )
        return self._signatures

    def receive(self, body: bytes, headers: Mapping[str, str], sender: str) -> bool:
        """Check a message, and wake the watchers if it is about an alias of one of the models.

        Args:
            body: the body, exactly as it was received.
            headers: headers of the request.
            sender: its address, for the log.

        Returns:
            Whether the watchers were woken.

        Raises:
            ProblemError: 401 if it is not signed with our secret or too old; 403 if no messages are accepted.
        """
        try:
            delivery = self.require_signatures().check(
                body,
                signature=headers.get(SIGNATURE_HEADER),
                delivery_id=headers.get(DELIVERY_HEADER),
                timestamp=headers.get(TIMESTAMP_HEADER),
            )
        except SignatureError as error:
            log.warning("message from %s rejected: %s", sender, error)
            raise ProblemError(
                401,
                "bad_signature",
                "expected a recent message with a valid signature; the log of the service says what is wrong",
            ) from None
        about_model = delivery.data.get("name") in self._registered_names
        relevant = about_model and delivery.event in EVENTS and not delivery.repeated
        if relevant:
            self._wake()
        return relevant

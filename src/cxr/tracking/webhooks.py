"""Webhooks: the server tells a receiver about each move of an alias. Local stores tell nobody; they are polled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cxr.errors import ParameterError, RegistryError
from cxr.tracking.connection import client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import Webhook

ALIAS_SET, ALIAS_REMOVED = "model_version_alias.created", "model_version_alias.deleted"
"""MLflow's names; the first is also sent when an alias moves from one version to another."""
EVENTS = (ALIAS_SET, ALIAS_REMOVED)
NO_SERVER = "a local store sends no webhooks, and needs none: `cxr serve` looks by itself"


@dataclass(frozen=True)
class Subscription:
    """A webhook that the server knows.

    Attributes:
        id: the server's id of it.
        name: its name.
        url: address of the receiver.
        events: what it is told about, e.g. ``"model_version_alias.created"``.
        active: whether it is told.
    """

    id: str
    name: str
    url: str
    events: tuple[str, ...]
    active: bool


def webhooks(uri: str) -> list[Subscription]:
    """List the webhooks of a server.

    Args:
        uri: address of the server.

    Returns:
        All of them, oldest first.

    Raises:
        ParameterError: if ``uri`` is no server's address.
        RegistryError: if the server doesn't answer, or refuses.
    """
    with _server(uri) as connected:
        return [_subscription(one) for one in _all(connected)]


def ensure_webhook(uri: str, name: str, url: str, secret: str) -> tuple[Subscription, Literal["new", "updated"]]:
    """Have a receiver told about each move of an alias; asking twice leaves one webhook.

    Args:
        uri: address of the server.
        name: name of the webhook; one that is there gets the url and the secret.
        url: address of the receiver, as the server reaches it.
        secret: what the server signs its messages with.

    Returns:
        The webhook, and whether it is new.

    Raises:
        ParameterError: if ``uri`` is no server's address.
        RegistryError: if the server doesn't answer, or refuses.
    """
    with _server(uri) as connected:
        same = [one for one in _all(connected) if one.name == name]
        for surplus in same[1:]:  # two processes may have made one each
            connected.delete_webhook(surplus.webhook_id)
        if not same:
            made = connected.create_webhook(name, url, list(EVENTS), secret=secret)
            return _subscription(made), "new"
        # The server tells nobody the old secret, so that it cannot be compared.
        changed = connected.update_webhook(
            same[0].webhook_id, url=url, events=list(EVENTS), secret=secret, status="ACTIVE"
        )
        return _subscription(changed), "updated"


def remove_webhook(uri: str, name: str) -> int:
    """Have a receiver told no longer.

    Args:
        uri: address of the server.
        name: name of the webhook.

    Returns:
        How many webhooks of that name there were.

    Raises:
        ParameterError: if ``uri`` is no server's address.
        RegistryError: if the server doesn't answer, or refuses.
    """
    with _server(uri) as connected:
        found = [one for one in _all(connected) if one.name == name]
        for one in found:
            connected.delete_webhook(one.webhook_id)
        return len(found)


def try_webhook(uri: str, subscription: Subscription) -> str | None:
    """Let the server send a signed example.

    Args:
        uri: address of the server.
        subscription: the webhook.

    Returns:
        None if the receiver accepted it, else what went wrong.

    Raises:
        ParameterError: if ``uri`` is no server's address.
        RegistryError: if the server doesn't answer.
    """
    from mlflow.exceptions import MlflowException

    with _server(uri) as connected:
        try:
            outcome = connected.test_webhook(subscription.id)
        except MlflowException as error:  # the server itself tries several times, longer than we wait
            return f"the server has no answer of it yet ({str(error).partition(chr(10))[0]})"
    if outcome.success:
        return None
    if outcome.response_status == 401:
        return "it refused the signature (401): its secret is another one, or a clock is wrong"
    if outcome.response_status is not None:
        return f"it answered with status {outcome.response_status}: {outcome.response_body}"
    return str(outcome.error_message)


@contextmanager
def _server(uri: str) -> Iterator[MlflowClient]:
    """Connect to a server; what it refuses is told with what to do about it."""
    if not uri.startswith(("http://", "https://")):
        raise ParameterError(
            [f"expected the http(s):// address of a server, received tracking_uri={uri!r}; {NO_SERVER}"]
        )
    connected = client(uri)
    from mlflow.exceptions import MlflowException

    try:
        yield connected
    except MlflowException as error:
        text = str(error).partition("\n")[0]
        raise RegistryError(f"the server at {uri} refuses: {text}{_advice(text)}") from error


def _advice(text: str) -> str:
    if "scheme" in text:
        return " Use https, or start the server with MLFLOW_WEBHOOK_ALLOWED_SCHEMES=https,http for a trusted network."
    if "non-public" in text:
        return " For a receiver in the same network, start the server with MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true."
    if "500" in text:
        return (
            " Look into its log; it fails so where MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY is not set, or not the key "
            "that its webhooks were made with."
        )
    return ""


def _all(connected: MlflowClient) -> list[Webhook]:
    found: list[Webhook] = []
    token = None
    while True:
        page = connected.list_webhooks(page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return sorted(found, key=lambda one: (one.creation_timestamp, one.webhook_id))


def _subscription(one: Webhook) -> Subscription:
    return Subscription(
        str(one.webhook_id), str(one.name), str(one.url), tuple(map(str, one.events)), bool(one.status.is_active())
    )

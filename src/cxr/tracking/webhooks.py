"""Webhooks: a server notifies a receiver when an alias moves. Local stores send none, so they are polled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cxr.errors import ParameterError, RegistryError
from cxr.tracking.health import first_line, hide_passwords
from cxr.tracking.store import Store

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
        events: events that are sent, e.g. ``"model_version_alias.created"``.
        active: whether events are sent.
    """

    id: str
    name: str
    url: str
    events: tuple[str, ...]
    active: bool


def list_webhooks(store: Store) -> list[Subscription]:
    """List the webhooks of a server.

    Args:
        store: the tracking server.

    Returns:
        All of them, oldest first.

    Raises:
        ParameterError: if the store is no server.
        RegistryError: if the server does not answer, or refuses.
    """
    with _connect(store) as client:
        return [_subscription(webhook) for webhook in _all_webhooks(client)]


def ensure_webhook(store: Store, name: str, url: str, secret: str) -> tuple[Subscription, Literal["new", "updated"]]:
    """Subscribe a receiver to the moves of aliases; repeating this leaves one webhook.

    Args:
        store: the tracking server.
        name: name of the webhook; an existing one gets the url and the secret.
        url: address of the receiver, as the server reaches it.
        secret: the key with which the server signs its messages.

    Returns:
        The webhook, and whether it is new.

    Raises:
        ParameterError: if the store is no server.
        RegistryError: if the server does not answer, or refuses.
    """
    with _connect(store) as client:
        existing = [webhook for webhook in _all_webhooks(client) if webhook.name == name]
        for surplus in existing[1:]:  # two processes may have created one each
            client.delete_webhook(surplus.webhook_id)
        if not existing:
            return _subscription(client.create_webhook(name, url, list(EVENTS), secret=secret)), "new"
        # The server never reveals the old secret, so the two cannot be compared.
        updated = client.update_webhook(
            existing[0].webhook_id, url=url, events=list(EVENTS), secret=secret, status="ACTIVE"
        )
        return _subscription(updated), "updated"


def remove_webhook(store: Store, name: str) -> int:
    """Remove all webhooks of a name.

    Args:
        store: the tracking server.
        name: name of the webhook.

    Returns:
        How many webhooks of that name there were.

    Raises:
        ParameterError: if the store is no server.
        RegistryError: if the server does not answer, or refuses.
    """
    with _connect(store) as client:
        matches = [webhook for webhook in _all_webhooks(client) if webhook.name == name]
        for webhook in matches:
            client.delete_webhook(webhook.webhook_id)
        return len(matches)


def try_webhook(store: Store, subscription: Subscription) -> str | None:
    """Let the server send a signed example.

    Args:
        store: the tracking server.
        subscription: the webhook.

    Returns:
        None if the receiver accepted it, else the problem.

    Raises:
        ParameterError: if the store is no server.
        RegistryError: if the server does not answer.
    """
    from mlflow.exceptions import MlflowException

    with _connect(store) as client:
        try:
            result = client.test_webhook(subscription.id)
        except MlflowException as error:  # the server itself retries for longer than we wait
            return f"the server has no answer of it yet ({str(error).partition(chr(10))[0]})"
    if result.success:
        return None
    if result.response_status == 401:
        return "it refused the signature (401): its secret is another one, or a clock is wrong"
    if result.response_status is not None:
        return f"it answered with status {result.response_status}: {result.response_body}"
    return str(result.error_message)


@contextmanager
def _connect(store: Store) -> Iterator[MlflowClient]:
    """Connect to a server; a refusal becomes an error that says what to do."""
    if not store.is_server:
        raise ParameterError(
            [f"expected the http(s):// address of a server, received tracking_uri={store.uri!r}; {NO_SERVER}"]
        )
    client = store.connect()
    from mlflow.exceptions import MlflowException

    try:
        yield client
    except MlflowException as error:
        text = first_line(error)
        raise RegistryError(f"the server at {hide_passwords(store.uri)} refuses: {text}{_advice(text)}") from error


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


def _all_webhooks(client: MlflowClient) -> list[Webhook]:
    webhooks: list[Webhook] = []
    token = None
    while True:
        page = client.list_webhooks(page_token=token)
        webhooks.extend(page)
        token = page.token
        if not token:
            return sorted(webhooks, key=lambda webhook: (webhook.creation_timestamp, webhook.webhook_id))


def _subscription(webhook: Webhook) -> Subscription:
    events = tuple(map(str, webhook.events))
    active = bool(webhook.status.is_active())
    return Subscription(str(webhook.webhook_id), str(webhook.name), str(webhook.url), events, active)

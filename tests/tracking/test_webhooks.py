"""Webhooks of a real server: one per name, however often it is requested, and clear messages when it refuses."""

from __future__ import annotations

import pytest

from cxr.errors import ParameterError, RegistryError
from cxr.tracking.store import Store
from cxr.tracking.webhooks import EVENTS, ensure_webhook, list_webhooks, remove_webhook, try_webhook
from support.loopback import free_port
from support.tracking_server import WebhookServer

SECRET = "a secret of some length"
URL = "http://127.0.0.1:1/webhook"


@pytest.fixture(autouse=True)
def no_webhooks(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    for webhook in Store(server.uri).client.list_webhooks(max_results=1000):
        Store(server.uri).client.delete_webhook(webhook.webhook_id)


def test_repeating_leaves_one_webhook_with_the_latest_address(server: WebhookServer) -> None:
    first, change = ensure_webhook(Store(server.uri), "listener", URL, SECRET)
    assert (change, first.events, first.active) == ("new", EVENTS, True)
    Store(server.uri).client.update_webhook(first.id, status="DISABLED")
    second, change = ensure_webhook(Store(server.uri), "listener", f"{URL}/2", SECRET)
    assert (change, second.id, second.url, second.active) == ("updated", first.id, f"{URL}/2", True)
    assert [(webhook.id, webhook.url) for webhook in list_webhooks(Store(server.uri))] == [(first.id, f"{URL}/2")]


def test_webhooks_of_the_same_name_created_at_once_become_one(server: WebhookServer) -> None:
    for _ in range(2):
        Store(server.uri).client.create_webhook("listener", URL, list(EVENTS), secret=SECRET)
    webhook, change = ensure_webhook(Store(server.uri), "listener", URL, SECRET)
    assert change == "updated"
    assert [listed.id for listed in list_webhooks(Store(server.uri))] == [webhook.id]


def test_only_the_named_webhook_is_removed(server: WebhookServer) -> None:
    ensure_webhook(Store(server.uri), "listener", URL, SECRET)
    ensure_webhook(Store(server.uri), "other", URL, SECRET)
    assert remove_webhook(Store(server.uri), "listener") == 1
    assert remove_webhook(Store(server.uri), "listener") == 0
    assert [webhook.name for webhook in list_webhooks(Store(server.uri))] == ["other"]


def test_more_webhooks_than_a_page_holds_are_all_found(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_any_address(monkeypatch)
    for number in range(101):  # directly into the server's database, which is quicker
        Store(server.store).client.create_webhook(f"other-{number}", URL, list(EVENTS))
    assert len({webhook.name for webhook in list_webhooks(Store(server.uri))}) == 101


def test_an_absent_receiver_is_reported(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # the server tries four times, over seven seconds
    webhook, _ = ensure_webhook(Store(server.uri), "listener", f"http://127.0.0.1:{free_port()}/webhook", SECRET)
    problem = try_webhook(Store(server.uri), webhook)
    assert problem is not None and "refused" in problem
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    problem = try_webhook(Store(server.uri), webhook)
    assert problem is not None and "no answer of it yet" in problem


def test_the_setting_is_named_if_the_server_does_not_allow_an_address(server: WebhookServer) -> None:
    with pytest.raises(RegistryError, match=r"Invalid webhook URL scheme.*MLFLOW_WEBHOOK_ALLOWED_SCHEMES"):
        ensure_webhook(Store(server.uri), "listener", "ftp://127.0.0.1/webhook", SECRET)
    assert list_webhooks(Store(server.uri)) == []


def test_the_setting_is_named_if_the_server_has_lost_its_key(
    server: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_any_address(monkeypatch)
    # Written by this process, which has another key.
    unreadable = Store(server.store).client.create_webhook("old", URL, list(EVENTS), secret=SECRET)
    try:
        with pytest.raises(RegistryError, match="MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"):
            list_webhooks(Store(server.uri))
    finally:
        Store(server.store).client.delete_webhook(unreadable.webhook_id)


def test_a_local_store_sends_none_and_the_error_names_the_replacement(store: Store) -> None:
    for call in (list_webhooks, lambda store: remove_webhook(store, "listener")):
        with pytest.raises(ParameterError, match="`cxr serve` looks by itself"):
            call(store)


def allow_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow what a test writes directly into the server's database."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")

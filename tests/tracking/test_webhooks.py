"""Webhooks of a real server: one per name, whoever asks how often, and clear words when it refuses."""

from __future__ import annotations

import pytest

from cxr.errors import ParameterError, RegistryError
from cxr.tracking.connection import client
from cxr.tracking.webhooks import EVENTS, ensure_webhook, remove_webhook, try_webhook, webhooks
from support.loopback import free_port
from support.tracking_server import TrackingServer

SECRET = "a secret of some length"
URL = "http://127.0.0.1:1/webhook"


@pytest.fixture(autouse=True)
def none_left(server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    for one in client(server.uri).list_webhooks(max_results=1000):
        client(server.uri).delete_webhook(one.webhook_id)


def test_asking_twice_leaves_one_webhook_with_the_latest_address(server: TrackingServer) -> None:
    first, how = ensure_webhook(server.uri, "listener", URL, SECRET)
    assert (how, first.events, first.active) == ("new", EVENTS, True)
    client(server.uri).update_webhook(first.id, status="DISABLED")
    second, how = ensure_webhook(server.uri, "listener", f"{URL}/2", SECRET)
    assert (how, second.id, second.url, second.active) == ("updated", first.id, f"{URL}/2", True)
    assert [(one.id, one.url) for one in webhooks(server.uri)] == [(first.id, f"{URL}/2")]


def test_webhooks_of_the_same_name_made_at_once_become_one(server: TrackingServer) -> None:
    for _ in range(2):
        client(server.uri).create_webhook("listener", URL, list(EVENTS), secret=SECRET)
    kept, how = ensure_webhook(server.uri, "listener", URL, SECRET)
    assert how == "updated"
    assert [one.id for one in webhooks(server.uri)] == [kept.id]


def test_removing_takes_the_named_one_and_leaves_the_others(server: TrackingServer) -> None:
    ensure_webhook(server.uri, "listener", URL, SECRET)
    ensure_webhook(server.uri, "other", URL, SECRET)
    assert remove_webhook(server.uri, "listener") == 1
    assert remove_webhook(server.uri, "listener") == 0
    assert [one.name for one in webhooks(server.uri)] == ["other"]


def test_more_webhooks_than_a_page_holds_are_all_found(server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_any_address(monkeypatch)
    for number in range(101):  # straight into the server's database, which is quicker
        client(server.store).create_webhook(f"other-{number}", URL, list(EVENTS))
    assert len({one.name for one in webhooks(server.uri)}) == 101


def test_a_listener_that_is_not_there_is_told(server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # the server tries four times, over seven seconds
    made, _ = ensure_webhook(server.uri, "listener", f"http://127.0.0.1:{free_port()}/webhook", SECRET)
    trouble = try_webhook(server.uri, made)
    assert trouble is not None and "refused" in trouble
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    trouble = try_webhook(server.uri, made)
    assert trouble is not None and "no answer of it yet" in trouble


def test_an_address_that_the_server_does_not_allow_is_told_with_its_setting(server: TrackingServer) -> None:
    with pytest.raises(RegistryError, match=r"Invalid webhook URL scheme.*MLFLOW_WEBHOOK_ALLOWED_SCHEMES"):
        ensure_webhook(server.uri, "listener", "ftp://127.0.0.1/webhook", SECRET)
    assert webhooks(server.uri) == []


def test_a_server_that_has_lost_its_key_is_told_with_its_setting(
    server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_any_address(monkeypatch)
    # Written by this process, which has another key.
    unreadable = client(server.store).create_webhook("old", URL, list(EVENTS), secret=SECRET)
    try:
        with pytest.raises(RegistryError, match="MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"):
            webhooks(server.uri)
    finally:
        client(server.store).delete_webhook(unreadable.webhook_id)


def test_a_local_store_sends_none_and_says_what_does_its_work(uri: str) -> None:
    for ask in (webhooks, lambda store: remove_webhook(store, "listener")):
        with pytest.raises(ParameterError, match="`cxr serve` looks by itself"):
            ask(uri)


def allow_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what a test writes straight into the server's database."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")

"""With a real tracking server: its webhooks reach the service, and the service survives its outages."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from pathlib import Path

import pytest

from cxr.serving.alias_watcher import AliasChange, AliasWatcher
from cxr.tracking.aliases import read_promotion_log
from cxr.tracking.store import Store
from cxr.tracking.webhooks import ensure_webhook, remove_webhook, try_webhook
from support.forked_processes import COMMAND, run_forked
from support.rest_service import ServeCommand, champion_provider, run_service
from support.tracking_server import (
    FOLLOW_SECONDS,
    NAME,
    WEBHOOK_CACHE_SECONDS,
    WebhookServer,
    register_versions,
    wait_until,
)

SECRET = "a secret of some length"
NEVER_POLL = 3600.0


@pytest.fixture(scope="module")
def versions(server: WebhookServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    register_versions(tmp_path_factory.mktemp("versions") / "run", server.uri)


@pytest.fixture(autouse=True)
def champion(server: WebhookServer, versions: None) -> None:
    set_champion(server.uri, "1")


def set_champion(uri: str, version: str) -> None:
    Store(uri).client.set_registered_model_alias(NAME, "champion", version)


def test_a_webhook_brings_a_moved_alias_to_the_service_within_seconds(server: WebhookServer) -> None:
    provider, changes = champion_provider(server.uri, NAME), list[AliasChange]()
    watcher, store = AliasWatcher(provider, NEVER_POLL, [changes.append]), Store(server.uri)
    with run_service(provider, secret=SECRET, wake=watcher.wake) as service:
        watcher.start()
        try:
            webhook, _ = ensure_webhook(store, "service", f"{service.client.url}/webhook", SECRET)
            assert try_webhook(store, webhook) is None
            time.sleep(WEBHOOK_CACHE_SECONDS + 0.5)
            for version in ("2", "1"):
                set_champion(server.uri, version)
                wait_until(lambda version=version: provider.current.version == version, FOLLOW_SECONDS)
            assert changes == [AliasChange("champion", "2", "1"), AliasChange("champion", "1", "2")]
            assert provider.current.metadata.model == "three_block"
        finally:
            watcher.stop()
            remove_webhook(store, "service")


def test_a_server_with_another_secret_wakes_nobody(server: WebhookServer) -> None:
    store = Store(server.uri)
    with run_service(champion_provider(server.uri, NAME), secret=SECRET) as service:
        try:
            webhook, _ = ensure_webhook(store, "stranger", f"{service.client.url}/webhook", "some other secret")
            problem = try_webhook(store, webhook)
        finally:
            remove_webhook(store, "stranger")
    assert problem is not None and "401" in problem
    assert service.wake_calls == []


def test_an_outage_is_reported_once_and_the_moved_alias_is_followed_after_it(
    server: WebhookServer, caplog: pytest.LogCaptureFixture
) -> None:
    provider = champion_provider(server.uri, NAME)
    served = provider.current
    watcher = AliasWatcher(provider, 0.2)
    with caplog.at_level(logging.INFO, "cxr"):
        watcher.start()
        try:
            server.kill()
            wait_until(lambda: watcher.registry_unreachable, 60)
            watcher.wake()
            assert provider.current is served, "the version still answers"
            set_champion(server.store, "2")
            server.start()
            wait_until(lambda: provider.current.version == "2", 60)
        finally:
            watcher.stop(60)
    messages = [record.message for record in caplog.records if record.name == "cxr.serving.alias_watcher"]
    assert sum("is away, version 1 goes on" in message for message in messages) == 1, messages
    assert sum(message == "the registry answers again" for message in messages) == 1, messages


@pytest.mark.exhaustive  # the first test follows an alias in one process
def test_serve_and_webhook_work_together_and_no_worker_survives_a_killed_service(
    server: WebhookServer, tmp_path: Path
) -> None:
    secret = {"CXR_WEBHOOK_SECRET": SECRET}
    arguments = ("--tracking_uri", server.uri, "--seconds", str(NEVER_POLL), "--workers", "1")
    command = ServeCommand(tmp_path / "log", *arguments, environment=secret)
    try:
        assert served_version(command) == "1"
        webhook, environment = ("webhook", "--tracking_uri", server.uri), {**os.environ, **secret}
        added = run_cxr(*webhook, "--url", f"{command.client.url}/webhook", env=environment)
        assert added.returncode == 0 and "accepted a signed example" in added.stderr, added.stderr
        time.sleep(WEBHOOK_CACHE_SECONDS + 0.5)
        set_champion(server.uri, "2")
        wait_until(lambda: served_version(command) == "2")
        assert "champion is now version 2 (was 1)" in command.text
        store = Store(server.uri)
        wait_until(lambda: [entry.champion for entry in read_promotion_log(store, NAME)][-1:] == ["2"])
        removed = run_cxr(*webhook, "--remove", "true", env=environment)
        assert "removed webhook cxr-serve" in removed.stderr, removed.stderr
        assert SECRET not in command.text
        workers = command.workers()
        command.kill()
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    finally:
        command.kill()


def test_webhook_requires_an_address_and_a_secret(server: WebhookServer) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "CXR_WEBHOOK_SECRET"}
    no_url = run_cxr("webhook", "--tracking_uri", server.uri, env=environment)
    assert no_url.returncode == 2 and "received url=''" in no_url.stderr
    url = ("--url", "http://127.0.0.1:1/webhook")
    no_secret = run_cxr("webhook", "--tracking_uri", server.uri, *url, env=environment)
    assert no_secret.returncode == 2 and "CXR_WEBHOOK_SECRET" in no_secret.stderr
    assert not Store(server.uri).client.list_webhooks()


def run_cxr(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run_forked(COMMAND, *arguments, environment=env)


def served_version(command: ServeCommand) -> str:
    return str(command.client.get("/version")["version"])

"""With a real tracking server: its webhooks reach the service, and its outages are survived."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxr.serving.alias_watcher import Change, Watcher
from cxr.serving.model_provider import ServedAlias
from cxr.tracking.connection import client
from cxr.tracking.registry import promotion_log
from cxr.tracking.webhooks import ensure_webhook, remove_webhook, try_webhook
from support.rest_service import Command, running
from support.tracking_server import NAME, REMEMBERS, SOON, TrackingServer, register_versions, wait_until

SECRET = "a secret of some length"
HARDLY_EVER = 3600.0


@pytest.fixture(scope="module")
def versions(server: TrackingServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    register_versions(tmp_path_factory.mktemp("versions") / "run", server.uri)


@pytest.fixture(autouse=True)
def champion(server: TrackingServer, versions: None) -> None:
    client(server.uri).set_registered_model_alias(NAME, "champion", "1")


def give(server: TrackingServer, version: str) -> None:
    client(server.uri).set_registered_model_alias(NAME, "champion", version)


def test_a_move_in_the_registry_reaches_the_service_by_webhook_within_seconds(server: TrackingServer) -> None:
    served, seen = ServedAlias(server.uri, NAME), list[Change]()
    watcher = Watcher(served, HARDLY_EVER, [seen.append])
    with running(served, secret=SECRET, woken=watcher.wake) as service:
        watcher.start()
        try:
            made, _ = ensure_webhook(server.uri, "service", f"{service.client.url}/webhook", SECRET)
            assert try_webhook(server.uri, made) is None
            time.sleep(REMEMBERS + 0.5)
            for version in ("2", "1"):
                give(server, version)
                wait_until(lambda version=version: served.current.version == version, SOON)
            assert seen == [Change("champion", "2", "1"), Change("champion", "1", "2")]
            assert served.current.predictor.card.model == "three_block"
        finally:
            watcher.stop()
            remove_webhook(server.uri, "service")


def test_a_server_with_another_secret_moves_nothing(server: TrackingServer) -> None:
    with running(ServedAlias(server.uri, NAME), secret=SECRET) as service:
        try:
            made, _ = ensure_webhook(server.uri, "stranger", f"{service.client.url}/webhook", "some other secret")
            trouble = try_webhook(server.uri, made)
        finally:
            remove_webhook(server.uri, "stranger")
    assert trouble is not None and "401" in trouble
    assert service.woken == []


def test_an_outage_is_told_once_and_what_moved_meanwhile_is_followed(
    server: TrackingServer, caplog: pytest.LogCaptureFixture
) -> None:
    served = ServedAlias(server.uri, NAME)
    before = served.current
    watcher = Watcher(served, 0.2)
    with caplog.at_level(logging.INFO, "cxr"):
        watcher.start()
        try:
            server.kill()
            wait_until(lambda: watcher.away, 60)
            watcher.wake()
            assert served.current is before, "the version goes on answering"
            client(server.store).set_registered_model_alias(NAME, "champion", "2")
            server.start()
            wait_until(lambda: served.current.version == "2", 60)
        finally:
            watcher.stop(60)
    told = [record.message for record in caplog.records if record.name == "cxr.serving.alias_watcher"]
    assert sum("is away, version 1 goes on" in one for one in told) == 1, told
    assert sum(one == "the registry answers again" for one in told) == 1, told


def test_the_commands_serve_and_webhook_work_together_and_nothing_outlives_a_kill(
    server: TrackingServer, tmp_path: Path
) -> None:
    environment = {"CXR_WEBHOOK_SECRET": SECRET}
    words = ("--tracking_uri", server.uri, "--seconds", str(HARDLY_EVER), "--workers", "1")
    serving = Command(tmp_path / "log", *words, environment=environment)
    try:
        assert version(serving) == "1"
        known, environment = ("webhook", "--tracking_uri", server.uri), {**os.environ, **environment}
        told = run(*known, "--url", f"{serving.client.url}/webhook", env=environment)
        assert told.returncode == 0 and "accepted a signed example" in told.stderr, told.stderr
        time.sleep(REMEMBERS + 0.5)
        give(server, "2")
        wait_until(lambda: version(serving) == "2")
        assert "champion is now version 2 (was 1)" in serving.text
        wait_until(lambda: [entry.champion for entry in promotion_log(server.uri, NAME)][-1:] == ["2"])
        removed = run(*known, "--remove", "true", env=environment)
        assert "removed webhook cxr-serve" in removed.stderr, removed.stderr
        assert SECRET not in serving.text
        workers = serving.workers()
        serving.kill()
        wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in workers))
    finally:
        serving.kill()


def test_the_command_webhook_asks_for_a_server_an_address_and_a_secret(server: TrackingServer) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "CXR_WEBHOOK_SECRET"}
    nowhere = run("webhook", "--tracking_uri", server.uri, env=environment)
    assert nowhere.returncode == 2 and "received url=''" in nowhere.stderr
    unsigned = run("webhook", "--tracking_uri", server.uri, "--url", "http://127.0.0.1:1/webhook", env=environment)
    assert unsigned.returncode == 2 and "CXR_WEBHOOK_SECRET" in unsigned.stderr
    assert not client(server.uri).list_webhooks()


def cxr(*words: str) -> list[str]:
    return [sys.executable, "-m", "cxr.cli.main", *words]


def run(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(cxr(*words), capture_output=True, text=True, env=env, timeout=120)


def version(serving: Command) -> str:
    return str(serving.client.get("/version")["version"])

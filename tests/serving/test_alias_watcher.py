"""The watcher follows the aliases by polling, at once when it is woken, and through errors in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cxr.serving.alias_watcher import AliasChange, AliasWatcher, compare_aliases
from support.rest_service import champion_provider
from support.tracking_server import wait_until

if TYPE_CHECKING:
    from conftest import Registry

NEVER_POLL = 3600.0


@contextmanager
def started(watcher: AliasWatcher) -> Iterator[None]:
    watcher.start()
    try:
        yield
    finally:
        watcher.stop()


def test_polling_finds_a_new_champion_in_a_store_without_webhooks(registry: Registry) -> None:
    provider, changes = champion_provider(registry.uri, registry.name), list[AliasChange]()
    with started(AliasWatcher(provider, 0.5, [changes.append])):
        registry.set_alias("champion", "2")
        wait_until(lambda: provider.current.version == "2")
    assert changes == [AliasChange("champion", "2", "1")]
    assert str(changes[0]) == "champion is now version 2 (was 1)"


def test_a_woken_watcher_polls_at_once(registry: Registry) -> None:
    provider = champion_provider(registry.uri, registry.name)
    watcher = AliasWatcher(provider, NEVER_POLL)
    with started(watcher):
        registry.set_alias("champion", "2")
        watcher.wake()
        wait_until(lambda: provider.current.version == "2")


def test_a_woken_watcher_retries_a_version_that_has_failed(registry: Registry) -> None:
    provider = champion_provider(registry.uri, registry.name)
    network = registry.files("2") / "model.keras"
    content = network.read_bytes()
    network.unlink()
    watcher = AliasWatcher(provider, NEVER_POLL)
    with started(watcher):
        registry.set_alias("champion", "2")
        watcher.wake()
        wait_until(lambda: provider.problem)
        network.write_bytes(content)
        watcher.wake()
        wait_until(lambda: provider.current.version == "2")


def test_a_failing_callback_prevents_neither_the_others_nor_the_exchange(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(change: AliasChange) -> None:
        raise OSError("disk full")

    provider, changes = champion_provider(registry.uri, registry.name), list[AliasChange]()
    with caplog.at_level(logging.WARNING, "cxr"), started(AliasWatcher(provider, 0.5, [fail, changes.append])):
        registry.set_alias("champion", "2")
        wait_until(lambda: provider.current.version == "2")
        registry.set_alias("champion", "1")
        wait_until(lambda: provider.current.version == "1")
    assert [change.version for change in changes] == ["2", "1"]
    assert sum("disk full" in record.message for record in caplog.records) == 2


def test_a_local_store_that_disappears_is_reported_once_and_found_again(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    provider = champion_provider(registry.uri, registry.name)
    watcher = AliasWatcher(provider, 0.1)
    store = Path(registry.uri.removeprefix("sqlite:///"))
    with caplog.at_level(logging.INFO, "cxr"), started(watcher):
        store.rename(store.with_name("elsewhere.db"))
        wait_until(lambda: watcher.registry_unreachable)
        time.sleep(1)
        assert provider.current.version == "1"
        store.with_name("elsewhere.db").rename(store)
        wait_until(lambda: not watcher.registry_unreachable)
    messages = [record.message for record in caplog.records if record.name == "cxr.serving.alias_watcher"]
    starts = [message.partition(",")[0] for message in messages]
    assert starts == ["the registry is away", "the registry answers again"]


def test_changes_describe_set_moved_and_removed_aliases() -> None:
    previous = {"champion": "1", "challenger": "2", "kept": "1"}
    current = {"champion": "2", "kept": "1", "new": "3"}
    assert [str(change) for change in compare_aliases(previous, current)] == [
        "challenger is now nobody (was 2)",
        "champion is now version 2 (was 1)",
        "new is now version 3 (was nobody)",
    ]

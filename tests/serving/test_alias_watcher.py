"""The watcher follows the aliases by polling, at once when woken, and through whatever goes wrong meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cxr.serving.alias_watcher import Change, Watcher, changes
from cxr.serving.model_provider import ServedAlias
from support.tracking_server import wait_until

if TYPE_CHECKING:
    from conftest import Registry

HARDLY_EVER = 3600.0


@contextmanager
def running(watcher: Watcher) -> Iterator[None]:
    watcher.start()
    try:
        yield
    finally:
        watcher.stop()


def test_polling_finds_a_new_champion_in_a_store_without_webhooks(registry: Registry) -> None:
    served, seen = ServedAlias(registry.uri, registry.name), list[Change]()
    with running(Watcher(served, 0.5, [seen.append])):
        registry.give("champion", "2")
        wait_until(lambda: served.current.version == "2")
    assert seen == [Change("champion", "2", "1")]
    assert str(seen[0]) == "champion is now version 2 (was 1)"


def test_a_woken_watcher_looks_at_once(registry: Registry) -> None:
    served = ServedAlias(registry.uri, registry.name)
    watcher = Watcher(served, HARDLY_EVER)
    with running(watcher):
        registry.give("champion", "2")
        watcher.wake()
        wait_until(lambda: served.current.version == "2")


def test_a_woken_watcher_tries_a_version_again_that_has_failed(registry: Registry) -> None:
    served = ServedAlias(registry.uri, registry.name)
    network = registry.files("2") / "model.keras"
    kept = network.read_bytes()
    network.unlink()
    watcher = Watcher(served, HARDLY_EVER)
    with running(watcher):
        registry.give("champion", "2")
        watcher.wake()
        wait_until(lambda: served.problem)
        network.write_bytes(kept)
        watcher.wake()
        wait_until(lambda: served.current.version == "2")


def test_whoever_listens_and_fails_keeps_nobody_else_from_hearing_and_nothing_from_being_served(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(change: Change) -> None:
        raise OSError("disk full")

    served, seen = ServedAlias(registry.uri, registry.name), list[Change]()
    with caplog.at_level(logging.WARNING, "cxr"), running(Watcher(served, 0.5, [fail, seen.append])):
        registry.give("champion", "2")
        wait_until(lambda: served.current.version == "2")
        registry.give("champion", "1")
        wait_until(lambda: served.current.version == "1")
    assert [change.version for change in seen] == ["2", "1"]
    assert sum("disk full" in record.message for record in caplog.records) == 2


def test_a_local_store_that_disappears_is_told_once_and_found_again(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    served = ServedAlias(registry.uri, registry.name)
    watcher = Watcher(served, 0.1)
    store = Path(registry.uri.removeprefix("sqlite:///"))
    with caplog.at_level(logging.INFO, "cxr"), running(watcher):
        store.rename(store.with_name("elsewhere.db"))
        wait_until(lambda: watcher.away)
        time.sleep(1)
        assert served.current.version == "1"
        store.with_name("elsewhere.db").rename(store)
        wait_until(lambda: not watcher.away)
    told = [record.message for record in caplog.records if record.name == "cxr.serving.alias_watcher"]
    assert [one.partition(",")[0] for one in told] == ["the registry is away", "the registry answers again"]


def test_changes_name_aliases_that_were_set_moved_and_removed() -> None:
    before, now = {"champion": "1", "challenger": "2", "kept": "1"}, {"champion": "2", "kept": "1", "new": "3"}
    assert [str(change) for change in changes(before, now)] == [
        "challenger is now nobody (was 2)",
        "champion is now version 2 (was 1)",
        "new is now version 3 (was nobody)",
    ]

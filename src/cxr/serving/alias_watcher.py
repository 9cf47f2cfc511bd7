"""Polls the registry for moved aliases, and at once when a webhook wakes it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr.errors import CxrError
from cxr.serving.model_provider import AliasProvider
from cxr.tracking.health import use_short_timeouts
from cxr.tracking.registry_reader import alias_versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AliasChange:
    """An alias that has moved.

    Attributes:
        alias: the alias.
        version: the version that has it now; None if it was removed.
        previous_version: the version that had it before; None if it is new.
    """

    alias: str
    version: str | None
    previous_version: str | None

    def __str__(self) -> str:
        """Describe the change, e.g. ``"champion is now version 3 (was 2)"``."""
        version = "nobody" if self.version is None else f"version {self.version}"
        return f"{self.alias} is now {version} (was {self.previous_version or 'nobody'})"


def compare_aliases(previous: Mapping[str, str], current: Mapping[str, str]) -> list[AliasChange]:
    """Find the aliases that have moved.

    Args:
        previous: alias to version, as the registry had them before.
        current: alias to version, as the registry has them now.

    Returns:
        The changes, sorted by alias.
    """
    return [
        AliasChange(alias, current.get(alias), previous.get(alias))
        for alias in sorted({*previous, *current})
        if current.get(alias) != previous.get(alias)
    ]


class AliasWatcher:
    """A thread that keeps the served version equal to the registry's. It survives outages of the server."""

    def __init__(
        self,
        provider: AliasProvider[Any],
        poll_seconds: float,
        on_change: Sequence[Callable[[AliasChange], None]] = (),
    ) -> None:
        """Read the aliases for the first time.

        Args:
            provider: serves the version with an alias.
            poll_seconds: time between two polls, seconds.
            on_change: called in order for each alias that has moved, before the new version is loaded.

        Raises:
            MissingInputError: if there is no such local store.
            RegistryError: if the store does not answer.
        """
        self._provider = provider
        self._poll_seconds = poll_seconds
        self._on_change = tuple(on_change)
        self._aliases = alias_versions(provider.store, provider.registered_name)
        self._unreachable = False
        self._stopped = False
        self._wake_event = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        use_short_timeouts()
        self._thread.start()

    def wake(self) -> None:
        """Poll at once. Returns without waiting for the result."""
        self._wake_event.set()

    def stop(self, seconds: float = 5.0) -> None:
        """Stop after the poll that is running, if any.

        Args:
            seconds: longest time to wait for that poll.
        """
        self._stopped = True
        self._wake_event.set()
        self._thread.join(seconds)

    @property
    def registry_unreachable(self) -> bool:
        """Whether the last poll got no response from the store."""
        return self._unreachable

    def _watch(self) -> None:
        woken = False
        while not self._stopped:
            try:
                self._poll(at_once=woken)
            except Exception:  # without this the thread would end silently, and one version would be served forever
                log.exception("reading the aliases failed; trying again in %g s", self._poll_seconds)
            woken = self._wake_event.wait(self._poll_seconds)
            self._wake_event.clear()

    def _poll(self, *, at_once: bool) -> None:
        try:
            aliases = alias_versions(self._provider.store, self._provider.registered_name)
        except CxrError as error:  # a MissingInputError too: a local store can disappear
            if not self._unreachable:
                log.warning(
                    "the registry is away, %s; asking every %g s: %s", self._provider.status, self._poll_seconds, error
                )  # fmt: skip
            self._unreachable = True
            return
        if self._unreachable:
            log.info("the registry answers again")
        self._unreachable = False
        changes, self._aliases = compare_aliases(self._aliases, aliases), aliases
        for change in changes:  # before the new version is loaded, which can take a while
            self._notify(change)
        self._provider.follow(aliases, at_once=at_once or bool(changes))

    def _notify(self, change: AliasChange) -> None:
        for callback in self._on_change:
            try:
                callback(change)
            except Exception as error:  # a failing callback must not prevent the exchange of the version
                log.warning("%s; reporting it failed: %s", change, error, exc_info=not isinstance(error, CxrError))

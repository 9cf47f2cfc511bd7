"""The watcher: looks again and again who has the aliases, at once when a webhook wakes it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cxr.errors import CxrError
from cxr.serving.model_provider import ServedAlias
from cxr.tracking.registry_reader import alias_versions, ask_briefly

log = logging.getLogger(__name__)

LOOK_EVERY = 5.0


@dataclass(frozen=True)
class Change:
    """An alias that has moved.

    Attributes:
        alias: the alias.
        version: version that has it now, None if none.
        before: version that had it before, None if none.
    """

    alias: str
    version: str | None
    before: str | None

    def __str__(self) -> str:
        """Say it, e.g. ``"champion is now version 3 (was 2)"``."""
        now = "nobody" if self.version is None else f"version {self.version}"
        return f"{self.alias} is now {now} (was {self.before or 'nobody'})"


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    """Compare two looks at the aliases.

    Args:
        before: alias to version.
        now: the same, later.

    Returns:
        What has moved, by alias.
    """
    return [
        Change(alias, now.get(alias), before.get(alias))
        for alias in sorted({*before, *now})
        if now.get(alias) != before.get(alias)
    ]


class Watcher:
    """A thread that keeps what is served in line with the registry, through outages of the server."""

    def __init__(
        self,
        served: ServedAlias,
        seconds: float = LOOK_EVERY,
        on_change: Sequence[Callable[[Change], None]] = (),
    ) -> None:
        """Take note of where the aliases are.

        Args:
            served: what is served.
            seconds: time between two looks.
            on_change: called in order for each alias that has moved, before its version is loaded.

        Raises:
            MissingInputError: if there is no such local store.
            RegistryError: if the store doesn't answer.
        """
        self._served = served
        self._seconds = seconds
        self._on_change = tuple(on_change)
        self._aliases = alias_versions(served.uri, served.registered_name)
        self._away = False
        self._stopped = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        ask_briefly()
        self._thread.start()

    def wake(self) -> None:
        """Look at once; returns without waiting for it."""
        self._woken.set()

    def stop(self, seconds: float = 5.0) -> None:
        """End after the look that is under way, if any.

        Args:
            seconds: longest time to wait for that look.
        """
        self._stopped = True
        self._woken.set()
        self._thread.join(seconds)

    @property
    def away(self) -> bool:
        """Whether the last look got no answer from the store."""
        return self._away

    def _watch(self) -> None:
        woken = False
        while not self._stopped:
            try:
                self._look(at_once=woken)
            except Exception:  # a thread that ends in silence would serve one version for ever
                log.exception("looking at the aliases failed; looking again in %g s", self._seconds)
            woken = self._woken.wait(self._seconds)
            self._woken.clear()

    def _look(self, *, at_once: bool) -> None:
        name = self._served.registered_name
        try:
            now = alias_versions(self._served.uri, name)
        except CxrError as error:  # a local store may also be gone
            if not self._away:
                version = self._served.current.version
                log.warning(
                    "the registry is away, version %s goes on; looking every %g s: %s", version, self._seconds, error
                )
            self._away = True
            return
        if self._away:
            log.info("the registry answers again")
        self._away = False
        moved, self._aliases = changes(self._aliases, now), now
        for change in moved:  # before the new version is loaded, which may take a while
            self._pass_on(change)
        self._served.follow(now, at_once=at_once or bool(moved))

    def _pass_on(self, change: Change) -> None:
        for call in self._on_change:
            try:
                call(change)
            except Exception as error:  # whoever listens must not keep the version from being exchanged
                log.warning("%s; passing that on failed: %s", change, error, exc_info=not isinstance(error, CxrError))

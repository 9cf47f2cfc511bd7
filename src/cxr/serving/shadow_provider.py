"""Gives the shadow: the version with a second alias, which answers beside the champion and is seen by no client."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from cxr.serving.model_provider import AliasProvider, ModelProvider
from cxr.serving.model_source import LoadPredictor, load_checked_version, load_with_keras
from cxr.serving.served_model import ServedModel
from cxr.tracking.store import Store

log = logging.getLogger(__name__)


class AliasShadowProvider(AliasProvider[ServedModel]):
    """Gives the version that has the shadow's alias, as long as it is another one than the version that answers.

    Nothing is loaded before the watcher's first poll, so that the service does not start later because of a shadow.
    When nobody has the alias any more, or the shadow has become champion, it is unloaded.
    """

    def __init__(
        self,
        store: Store,
        registered_name: str,
        alias: str,
        champion: ModelProvider,
        *,
        load_predictor: LoadPredictor = load_with_keras,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember what to follow; nothing is loaded yet.

        Args:
            store: the tracking store.
            registered_name: name of the registered model.
            alias: the alias of the shadow.
            champion: gives the version that answers.
            load_predictor: loads a classifier, for the runtime that is to compute.
            clock: gives seconds; it times the attempts to load a version that fails.
        """
        super().__init__(store, registered_name, alias, fallback=None, clock=clock)
        self._champion = champion
        self._load_predictor = load_predictor
        self._absence: str | None = None

    @property
    def current(self) -> ServedModel | None:
        """The version that answers unseen now; None for none."""
        return self._served

    @property
    def status(self) -> str:
        """What goes on while something is wrong, for messages."""
        return "no shadow answers" if self._served is None else f"version {self._served.version} stays the shadow"

    def follow(self, aliases: Mapping[str, str], *, at_once: bool = False) -> bool:
        """Load the version that has the alias, unless it is loaded already or answers the clients.

        Args:
            aliases: alias to version, as the registry has them now.
            at_once: whether to retry a version that failed before without waiting.

        Returns:
            Whether another version is the shadow now.
        """
        version = aliases.get(self.alias)
        if version is None:
            return self._unload(f"no version of {self.registered_name} has the alias {self.alias}")
        if version == self._champion.current.version:
            return self._unload(f"version {version} has the alias {self.alias} and answers the clients")
        self._absence = None
        return super().follow(aliases, at_once=at_once)

    def _unload(self, reason: str) -> bool:
        with self._loading:
            had_shadow = self._served is not None
            self._served = self._failed_load = self._problem = None
        if reason != self._absence:
            log.info("%s: no shadow answers", reason)
        self._absence = reason
        return had_shadow

    def _load(self, version: str, alias: str) -> ServedModel:
        served = load_checked_version(
            self.store, self.registered_name, version, alias,
            preferred_alias=self.alias, load_predictor=self._load_predictor,
        )  # fmt: skip
        log.info(
            "version %s of %s answers unseen, as the shadow (%s, %s)",
            version, self.registered_name, served.metadata.model, alias,
        )  # fmt: skip
        return served

    def _banner(self, served: ServedModel, alias: str) -> str | None:  # nobody sees a notice of a shadow
        return served.banner

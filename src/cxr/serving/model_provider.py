"""Gives the model that answers, and the detector that draws boxes: of a folder, or the version with an alias."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Generic, Protocol

from cxr.errors import RegistryError
from cxr.serving.detector_source import ServedDetector, detector_banner, load_detector
from cxr.serving.model_source import (
    CLASSIFIER_REMEDY,
    LoadPredictor,
    find_version,
    first_alias,
    load_version,
    load_with_keras,
)
from cxr.serving.served_model import ServedModel, ServedT, version_banner
from cxr.tracking.registry_reader import alias_versions
from cxr.tracking.store import Store

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 5.0, 300.0
"""Time between attempts to load a version that fails. It doubles after each attempt, up to the second value."""


class ModelProvider(Protocol):
    """Gives the model that answers now."""

    @property
    def registered_name(self) -> str:
        """Name of the registered model; empty for a model from a folder."""

    @property
    def current(self) -> ServedModel:
        """The model that answers now."""

    @property
    def problem(self) -> str | None:
        """Why another version should answer and does not; None if nothing is wrong."""


@dataclass(frozen=True)
class FolderModelProvider:
    """Gives a model from a folder. It never changes."""

    current: ServedModel
    registered_name: str = ""
    problem: str | None = None


class DetectorProvider(Protocol):
    """Gives the detector that draws boxes now."""

    @property
    def registered_name(self) -> str:
        """Name of the registered detector; empty for a detector from a folder."""

    @property
    def current(self) -> ServedDetector | None:
        """The detector that draws boxes now; None as long as no version has the alias."""

    @property
    def problem(self) -> str | None:
        """Why another version should draw boxes and does not; None if nothing is wrong."""


@dataclass(frozen=True)
class FolderDetectorProvider:
    """Gives a detector from a folder. It never changes."""

    current: ServedDetector | None
    registered_name: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class _FailedLoad:
    """A version that could not be loaded, and when to try it again."""

    version: str
    delay: float
    retry_at: float


class AliasProvider(ABC, Generic[ServedT]):
    """Gives the version that has an alias.

    A new version is loaded while the current one still answers. It takes over when all its files are there and it has
    predicted a drawn image. If that fails, the current version goes on.
    """

    def __init__(
        self,
        store: Store,
        registered_name: str,
        alias: str,
        *,
        fallback: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember what to follow; nothing is loaded yet.

        Args:
            store: the tracking store.
            registered_name: name of the registered model.
            alias: the preferred alias.
            fallback: the alias to serve, with a banner, until a version gets ``alias``; None for none.
            clock: gives seconds; it times the attempts to load a version that fails.
        """
        self.store, self.registered_name, self.alias, self.fallback = store, registered_name, alias, fallback
        self._clock = clock
        self._loading = threading.Lock()
        self._failed_load: _FailedLoad | None = None
        self._problem: str | None = None
        self._served: ServedT | None = None

    @property
    def problem(self) -> str | None:
        """Why the version that has the alias does not answer; None if it does."""
        return self._problem

    @property
    def status(self) -> str:
        """What goes on while something is wrong, for messages."""
        return "nothing answers" if self._served is None else f"version {self._served.version} goes on"

    def reload(self) -> bool:
        """Read the aliases, and load the version at once if it is another one.

        Returns:
            Whether another version answers now.

        Raises:
            RegistryError: if the store does not answer.
        """
        return self.follow(alias_versions(self.store, self.registered_name), at_once=True)

    def follow(self, aliases: Mapping[str, str], *, at_once: bool = False) -> bool:
        """Load the version that has the alias, unless it answers already.

        Args:
            aliases: alias to version, as the registry has them now.
            at_once: whether to retry a version that failed before without waiting.

        Returns:
            Whether another version answers now.
        """
        with self._loading:
            served, alias = self._served, self._choose_alias(aliases)
            if alias is None:
                if served is not None:
                    self._report(f"nobody has the alias {served.alias}: {self.status}")
                else:
                    self._failed_load = self._problem = None
                return False
            version = aliases[alias]
            if served is not None and version == served.version:
                if alias != served.alias:  # the challenger that answers has become champion
                    banner = self._banner(served, alias)
                    self._served = replace(served, alias=alias, banner=banner, since=datetime.now(UTC))
                self._failed_load = self._problem = None
                return False
            failed = self._failed_load if self._failed_load and self._failed_load.version == version else None
            if failed and not at_once and self._clock() < failed.retry_at:
                return False
            try:
                self._served = self._load(version, alias)
            except RegistryError as error:
                delay = min(2 * failed.delay, LONGEST_RETRY_SECONDS) if failed else FIRST_RETRY_SECONDS
                self._failed_load = _FailedLoad(version, delay, self._clock() + delay)
                self._report(f"version {version} has the alias {alias} and cannot answer: {error}; {self.status}")
                return False
            self._failed_load = self._problem = None
            return True

    def _choose_alias(self, aliases: Mapping[str, str]) -> str | None:
        """The alias to serve. When a version has had the preferred alias, the fallback is never used again."""
        return first_alias(aliases, self.alias, self.fallback if self._served is None else self._served.alias)

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem

    @abstractmethod
    def _load(self, version: str, alias: str) -> ServedT:
        """Load a version; raises RegistryError if anything is wrong with it."""

    @abstractmethod
    def _banner(self, served: ServedT, alias: str) -> str | None:
        """Word the banner of a loaded version that has another alias now."""


class AliasModelProvider(AliasProvider[ServedModel]):
    """Gives the version of the classifier that has an alias. There always is one."""

    def __init__(
        self,
        store: Store,
        registered_name: str,
        alias: str,
        *,
        fallback: str | None,
        load_predictor: LoadPredictor = load_with_keras,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the first version.

        Args:
            store: the tracking store.
            registered_name: name of the registered model.
            alias: the preferred alias.
            fallback: the alias to serve, with a banner, until a version gets ``alias``; None for none.
            load_predictor: loads a classifier, for the runtime that is to compute.
            clock: gives seconds; it times the attempts to load a version that fails.

        Raises:
            MissingInputError: if there is no such local store; none is created.
            RegistryError: if the store does not answer, no version has the alias, or the version cannot be loaded.
        """
        super().__init__(store, registered_name, alias, fallback=fallback, clock=clock)
        self._load_predictor = load_predictor
        self._first = self._served = self._load(
            *find_version(store, registered_name, alias, fallback, remedy=CLASSIFIER_REMEDY)
        )

    @property
    def current(self) -> ServedModel:
        """The version that answers now."""
        return self._served or self._first

    def _load(self, version: str, alias: str) -> ServedModel:
        return load_version(
            self.store, self.registered_name, version, alias,
            preferred_alias=self.alias, load_predictor=self._load_predictor,
        )  # fmt: skip

    def _banner(self, served: ServedModel, alias: str) -> str | None:
        return version_banner(served.metadata, served.version, alias, self.alias)


class AliasDetectorProvider(AliasProvider[ServedDetector]):
    """Gives the version of the detector that has an alias, as soon as there is one. Until then no boxes are drawn."""

    def __init__(
        self,
        store: Store,
        registered_name: str,
        alias: str,
        *,
        fallback: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the version that has the alias, if there is one and it can be loaded.

        Args:
            store: the tracking store.
            registered_name: name of the registered detector.
            alias: the preferred alias.
            fallback: the alias to serve, with a banner, until a version gets ``alias``; None for none.
            clock: gives seconds; it times the attempts to load a version that fails.

        Raises:
            MissingInputError: if there is no such local store; none is created.
            RegistryError: if the store does not answer.
        """
        super().__init__(store, registered_name, alias, fallback=fallback, clock=clock)
        self.reload()
        if self._served is None and self._problem is None:
            aliases = alias if fallback is None else f"{alias} or {fallback}"
            log.info("no version of %s has the alias %s: no boxes are drawn", registered_name, aliases)

    @property
    def current(self) -> ServedDetector | None:
        """The version that draws boxes now; None as long as no version has the alias."""
        return self._served

    @property
    def status(self) -> str:
        """What goes on while something is wrong, for messages."""
        return "no boxes are drawn" if self._served is None else f"version {self._served.version} goes on"

    def _load(self, version: str, alias: str) -> ServedDetector:
        return load_detector(self.store, self.registered_name, version, alias, preferred_alias=self.alias)

    def _banner(self, served: ServedDetector, alias: str) -> str | None:
        return detector_banner(served.metadata, served.version, alias, self.alias)

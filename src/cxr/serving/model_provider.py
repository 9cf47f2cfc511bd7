"""The version that answers, and its exchange for another one without a gap."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cxr.errors import CxrError, RegistryError
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import MODEL_CARD_FILE
from cxr.images.decoding import Picture
from cxr.inference.answers import Answer, answer
from cxr.inference.predictor import Predictor
from cxr.inference.reference.reference import Reference
from cxr.models.metadata import ModelCard
from cxr.promotion.log import CHAMPION
from cxr.tracking.registry_reader import alias_versions, fetch_version

log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 5.0, 300.0
"""Seconds between attempts to load a version that doesn't answer: doubled each time, up to the second."""
PHANTOM_BANNER = "Trained on phantoms: drawn images, not patients. Never for use on people."


@dataclass(frozen=True)
class Served:
    """A version that answers. A request takes it once and keeps it to its end, whatever is loaded meanwhile.

    Attributes:
        version: its number in the registry.
        alias: the alias it was loaded for.
        predictor: the network with recipe, calibration and threshold.
        reference: what its training films look like; None in versions that carry none, which answer for everything.
        validation: its answers for validation films; None in versions that carry none.
        about: its model card, Markdown; None in versions that carry none.
        banner: what people must be told beside each answer, None if there is nothing.
        since: when it began to answer, UTC.
    """

    version: str
    alias: str
    predictor: Predictor
    reference: Reference | None = None
    validation: ValidationScores | None = None
    about: str | None = None
    banner: str | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self.predictor.card

    def answer(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Answer for pictures, but for those that are no chest films.

        Args:
            pictures: as they came.

        Returns:
            One answer per picture, in order.

        Raises:
            ImageError: ``unsuitable``, if a recipe cannot cope with a picture.
        """
        return answer(self.predictor, self.reference, pictures)


@dataclass(frozen=True)
class _Refusal:
    """A version that doesn't answer, and when it is tried again."""

    version: str
    delay: float
    until: float


class ServedAlias:
    """Keeps the version with an alias ready to answer.

    Another version is loaded beside the present one and takes its place only when all its files are there and
    it has answered for a drawn image. Until then, and if it never does, the present one goes on.
    """

    def __init__(
        self,
        uri: str,
        registered_name: str,
        alias: str = CHAMPION,
        *,
        fallback: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the first version.

        Args:
            uri: address of the store.
            registered_name: name of the registered model.
            alias: the alias to serve.
            fallback: alias to serve, with a banner, as long as nobody has had ``alias`` yet; None for none.
            clock: gives seconds; spaces the attempts to load a version that doesn't answer.

        Raises:
            MissingInputError: if there is no such local store; none is made.
            RegistryError: if the store doesn't answer, nobody has the alias, or its version doesn't answer.
        """
        self.uri, self.registered_name, self.alias, self.fallback = uri, registered_name, alias, fallback
        self._clock = clock
        self._loading = threading.Lock()
        self._refusal: _Refusal | None = None
        self._problem: str | None = None
        version, chosen = choose_version(uri, registered_name, alias, fallback)
        self._current = self._load(version, chosen)

    @property
    def current(self) -> Served:
        """The version that answers now."""
        return self._current

    @property
    def problem(self) -> str | None:
        """Why the version that has the alias isn't the one that answers; None if it is."""
        return self._problem

    def reload(self) -> bool:
        """Look who has the alias now, and load it at once.

        Returns:
            Whether another version answers now.

        Raises:
            RegistryError: if the store doesn't answer.
        """
        return self.follow(alias_versions(self.uri, self.registered_name), at_once=True)

    def follow(self, aliases: Mapping[str, str], *, at_once: bool = False) -> bool:
        """Load the version that has the alias, unless it answers already.

        Args:
            aliases: alias to version, as the registry has them now.
            at_once: try a version that has failed before without waiting for its next attempt.

        Returns:
            Whether another version answers now.
        """
        with self._loading:
            chosen = self._chosen(aliases)
            if chosen is None:
                self._tell(f"nobody has the alias {self._current.alias}: version {self._current.version} goes on")
                return False
            version = aliases[chosen]
            if (version, chosen) == (self._current.version, self._current.alias):
                self._refusal = self._problem = None
                return False
            if version == self._current.version:  # the challenger that answered has become champion
                banner = _banner(self._current.card, version, chosen, self.alias)
                self._current = replace(self._current, alias=chosen, banner=banner, since=datetime.now(UTC))
                self._refusal = self._problem = None
                return False
            refused = self._refusal if self._refusal and self._refusal.version == version else None
            if refused and not at_once and self._clock() < refused.until:
                return False
            try:
                self._current = self._load(version, chosen)
            except RegistryError as error:
                delay = min(2 * refused.delay, LONGEST_DELAY) if refused else FIRST_DELAY
                self._refusal = _Refusal(version, delay, self._clock() + delay)
                self._tell(
                    f"version {version} has the alias {chosen} and doesn't answer: {error}; "
                    f"version {self._current.version} goes on"
                )
                return False
            self._refusal = self._problem = None
            return True

    def _chosen(self, aliases: Mapping[str, str]) -> str | None:
        """The alias to serve: once somebody has had the wanted one, never the fallback's again."""
        if self.alias in aliases:
            return self.alias
        return self._current.alias if self._current.alias in aliases else None

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem

    def _load(self, version: str, alias: str) -> Served:
        return load_version(self.uri, self.registered_name, version, alias, wanted=self.alias)


def choose_version(uri: str, registered_name: str, alias: str, fallback: str | None = None) -> tuple[str, str]:
    """Look up which version answers.

    Args:
        uri: address of the store.
        registered_name: name of the registered model.
        alias: the wanted alias.
        fallback: alias to take while nobody has the wanted one; None for none.

    Returns:
        The version's number, and the alias that it was found by.

    Raises:
        MissingInputError: if there is no such local store; none is made.
        RegistryError: if the store doesn't answer, or nobody has the alias.
    """
    found = alias_versions(uri, registered_name)
    chosen = next((one for one in (alias, fallback) if one is not None and one in found), None)
    if chosen is None:
        wanted = alias if fallback is None else f"{alias} or {fallback}"
        raise RegistryError(
            f"expected a version of {registered_name} with the alias {wanted}, received aliases={found}; "
            "run `cxr register`, set the alias in MLflow's page, or take the challenger (fallback)"
        )
    return found[chosen], chosen


def load_version(uri: str, registered_name: str, version: str, alias: str = "", *, wanted: str = "") -> Served:
    """Load a version and let it answer once.

    Args:
        uri: address of the store.
        registered_name: name of the registered model.
        version: its number.
        alias: the alias that it was found by; empty if it was named by its number.
        wanted: the alias that was asked for.

    Returns:
        The version, ready to answer.

    Raises:
        RegistryError: whatever is wrong with it.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = fetch_version(uri, registered_name, version, Path(scratch))
            predictor = Predictor.load(folder)
            reference, validation = Reference.load(folder), ValidationScores.load(folder)
            text = folder / MODEL_CARD_FILE
            about = text.read_text(encoding="utf-8") if text.is_file() else None
            probability = predictor.predict([_drawn()])[0].probability
    except RegistryError:
        raise
    except CxrError as error:
        raise RegistryError(f"version {version} of {registered_name}: {error}") from error
    except Exception as error:  # a broken file fails in any way, and must never end what answers
        raise RegistryError(f"version {version} of {registered_name} cannot be loaded: {error!r}") from error
    if not 0 <= probability <= 1:
        raise RegistryError(
            f"expected a probability from 0 to 1 for a drawn image, received {probability} from version {version} "
            f"of {registered_name}; register the model again"
        )
    found_by = f", {alias}" if alias else ""
    log.info("version %s of %s answers (%s%s)", version, registered_name, predictor.card.model, found_by)
    if reference is None:
        log.warning("version %s carries no reference: it answers for pictures that are no chest films too", version)
    return Served(
        version, alias, predictor, reference, validation, about, _banner(predictor.card, version, alias, wanted)
    )


def _banner(card: ModelCard, version: str, alias: str, wanted: str) -> str | None:
    sentences = [PHANTOM_BANNER] if card.dataset_kind == "phantom" else []
    if alias != wanted:
        sentences.append(f"No {wanted} has been chosen yet: version {version}, the {alias}, answers.")
    return " ".join(sentences) or None


@cache
def _drawn() -> bytes:
    """An image that every model must have an answer for."""
    from cxr.data.phantom.dataset import Plan, picture

    return picture(Plan("test", "normal", 1, 0, "drawn.jpeg"), seed=0).data

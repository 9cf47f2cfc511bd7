"""Models that are named first and loaded later, and those that are versions of the registered model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from cxr.errors import CxrError, RegistryError, UnknownVersionError
from cxr.evaluation.validation_scores import ValidationScores
from cxr.files import MODEL_CARD_FILE, scratch_folder
from cxr.inference.predictor import Predictor
from cxr.inference.reference.reference import Reference
from cxr.models.backend import load_keras
from cxr.models.metadata import ModelMetadata
from cxr.serving.served_model import ServedModel, ServedT, ServedVersion, version_banner
from cxr.tracking.registry_reader import alias_versions, fetch_version
from cxr.tracking.store import Store
from cxr.tracking.version_record import read_recorded_card

log = logging.getLogger(__name__)

LoadPredictor = Callable[[Path, ModelMetadata | None], Predictor]
"""Loads a classifier from its folder, with other metadata than the folder's if some are given."""


def load_with_keras(folder: Path, metadata: ModelMetadata | None = None) -> Predictor:
    """Load a classifier whose networks run in Keras; it can also be explained.

    Args:
        folder: folder of the model.
        metadata: metadata to use instead of the folder's.

    Returns:
        The predictor.

    Raises:
        MissingInputError: if a file is missing.
        DataError: if it is the folder of a detector, or a file is damaged.
    """
    load_keras()
    return Predictor.load(folder, metadata)


VersionT_co = TypeVar("VersionT_co", bound=ServedVersion, covariant=True)


class LoadVersion(Protocol[VersionT_co]):
    """Loads a version; raises RegistryError if anything is wrong with it."""

    def __call__(
        self, store: Store, registered_name: str, version: str, alias: str, *, preferred_alias: str
    ) -> VersionT_co:
        """Load a version, found by an alias; ``preferred_alias`` was asked for."""


CLASSIFIER_REMEDY = (
    "run `cxr register`, set the alias in MLflow's page, or take the challenger with --fallback challenger"
)
"""What to do if no version of the classifier has the alias."""


@dataclass(frozen=True)
class ModelSource(Generic[ServedT]):
    """A model or a detector that is not loaded yet.

    Attributes:
        name: its name in messages.
        identity: text that changes whenever the model's predictions could change.
        load: loads the model; raises RegistryError or MissingInputError if it cannot answer.
    """

    name: str
    identity: str
    load: Callable[[], ServedT]


def registry_source(
    store: Store, registered_name: str, *, version: str | None, alias: str, fallback: str | None
) -> ModelSource[ServedModel]:
    """Find a version of the registered model.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.
        version: number of the version; None for the version with the alias.
        alias: the preferred alias.
        fallback: the alias to use if no version has the preferred one; None for none.

    Returns:
        The version, not loaded yet.

    Raises:
        MissingInputError: if there is no such local store.
        RegistryError: if the store does not answer, or no version has the alias.
    """
    return version_source(
        store, registered_name, load_version, version=version, alias=alias, fallback=fallback, remedy=CLASSIFIER_REMEDY
    )


def version_source(
    store: Store,
    registered_name: str,
    load: LoadVersion[ServedT],
    *,
    version: str | None,
    alias: str,
    fallback: str | None,
    remedy: str,
) -> ModelSource[ServedT]:
    """Find a version of a registered model of any kind.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.
        load: loads a version of this kind.
        version: number of the version; None for the version with the alias.
        alias: the preferred alias.
        fallback: the alias to use if no version has the preferred one; None for none.
        remedy: what to do if no version has the alias.

    Returns:
        The version, not loaded yet.

    Raises:
        MissingInputError: if there is no such local store.
        RegistryError: if the store does not answer, or no version has the alias.
    """
    if version is not None:
        number, found_alias, preferred_alias = version, "", ""
    else:
        number, found_alias = find_version(store, registered_name, alias, fallback, remedy=remedy)
        preferred_alias = alias
    return ModelSource(
        f"version {number} of {registered_name}",
        f"{store.uri} {registered_name} {number} {found_alias}{_name_keys(store)}",
        lambda: load(store, registered_name, number, found_alias, preferred_alias=preferred_alias),
    )


def _name_keys(store: Store) -> str:
    """Ids of the keys that a version must be signed by: what an unchecked version predicted is predicted again."""
    return "" if store.trusted_keys is None else f" signed by {' '.join(sorted(store.trusted_keys.keys))}"


def find_version(
    store: Store, registered_name: str, alias: str, fallback: str | None, *, remedy: str
) -> tuple[str, str]:
    """Look up the version with an alias.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.
        alias: the preferred alias.
        fallback: the alias to use if no version has the preferred one; None for none.
        remedy: what to do if no version has the alias.

    Returns:
        The number of the version, and the alias it was found by.

    Raises:
        MissingInputError: if there is no such local store; none is created.
        UnknownVersionError: if no version has the alias.
        RegistryError: if the store does not answer.
    """
    aliases = alias_versions(store, registered_name)
    found_alias = first_alias(aliases, alias, fallback)
    if found_alias is None:
        expected = alias if fallback is None else f"{alias} or {fallback}"
        raise UnknownVersionError(
            f"expected a version of {registered_name} with the alias {expected}, received aliases={aliases}; {remedy}"
        )
    return aliases[found_alias], found_alias


def first_alias(aliases: Mapping[str, str], alias: str, fallback: str | None) -> str | None:
    """Choose an alias.

    Args:
        aliases: alias to version.
        alias: the preferred alias.
        fallback: the alias to use if no version has the preferred one; None for none.

    Returns:
        The alias; None if no version has one of them.
    """
    return next((name for name in (alias, fallback) if name is not None and name in aliases), None)


LoadedT = TypeVar("LoadedT")


def read_version(store: Store, registered_name: str, version: str, read: Callable[[Path], LoadedT]) -> LoadedT:
    """Fetch the files of a version and read them.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.
        version: number of the version.
        read: reads a folder with the files, which is removed afterwards.

    Returns:
        What ``read`` returns.

    Raises:
        RegistryError: if anything is wrong with the version.
    """
    try:
        with scratch_folder() as scratch:
            return read(fetch_version(store, registered_name, version, scratch))
    except RegistryError:
        raise
    except CxrError as error:
        raise RegistryError(f"version {version} of {registered_name}: {error}") from error
    except Exception as error:  # a broken file can raise anything, and must never stop the running service
        raise RegistryError(
            f"version {version} of {registered_name} cannot be loaded: {error!r}; "
            "give the alias to another version, or register the model again"
        ) from error


def read_model_card(folder: Path) -> str | None:
    """Read the model card of a version; None if it has none."""
    path = folder / MODEL_CARD_FILE
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _newest_card(store: Store, registered_name: str, version: str) -> str | None:
    """The model card of a version with what was measured after its registration, as by `cxr judge`; None without it."""
    try:
        with store.clear_errors(f"give the model card of version {version} of {registered_name}"):
            return read_recorded_card(store, store.client.get_model_version(registered_name, version))
    except RegistryError as error:  # a card is no reason to serve nothing: the version's own files have its first one
        log.warning("the model card is that of the registration: %s", error)
        return None


def load_version(
    store: Store,
    registered_name: str,
    version: str,
    alias: str,
    *,
    preferred_alias: str,
    load_predictor: LoadPredictor = load_with_keras,
) -> ServedModel:
    """Load a version that answers, and check that it predicts.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.
        version: number of the version.
        alias: the alias it was found by; empty if it was named by its number.
        preferred_alias: the alias that was asked for; another one than ``alias`` adds a banner.
        load_predictor: loads the classifier, for the runtime that is to compute.

    Returns:
        The loaded version.

    Raises:
        RegistryError: if anything is wrong with the version.
    """
    served = load_checked_version(
        store, registered_name, version, alias, preferred_alias=preferred_alias, load_predictor=load_predictor
    )
    alias_note = f", {alias}" if alias else ""
    log.info("version %s of %s answers (%s%s)", version, registered_name, served.metadata.model, alias_note)
    if served.reference is None:
        log.warning("version %s has no reference: it also answers for images that are no chest radiographs", version)
    return served


def load_checked_version(
    store: Store, registered_name: str, version: str, alias: str, *, preferred_alias: str, load_predictor: LoadPredictor
) -> ServedModel:
    """Load a version and check that it predicts, without a message that it answers.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.
        version: number of the version.
        alias: the alias it was found by; empty if it was named by its number.
        preferred_alias: the alias that was asked for; another one than ``alias`` adds a banner.
        load_predictor: loads the classifier, for the runtime that is to compute.

    Returns:
        The loaded version.

    Raises:
        RegistryError: if anything is wrong with the version.
    """

    def read(folder: Path) -> tuple[ServedModel, float]:
        predictor = load_predictor(folder, None)
        banner = version_banner(predictor.metadata, version, alias, preferred_alias)
        served = ServedModel(
            version, alias, predictor, Reference.load(folder), ValidationScores.load(folder),
            _newest_card(store, registered_name, version) or read_model_card(folder), banner,
        )  # fmt: skip
        return served, predictor.predict([drawn_image()])[0].probability

    served, probability = read_version(store, registered_name, version, read)
    if not 0 <= probability <= 1:
        raise RegistryError(
            f"expected a probability from 0 to 1 for a drawn image, received {probability} from version {version} "
            f"of {registered_name}; register the model again"
        )
    return served


@cache
def drawn_image() -> bytes:
    """A drawn image that every working model can predict."""
    from cxr.data.phantom.dataset import PhantomPlan, draw_image

    return draw_image(PhantomPlan("test", "normal", 1, 0, "drawn.jpeg"), seed=0).data

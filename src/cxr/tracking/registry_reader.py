"""Reading the model registry: aliases, facts of a version, and its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import (
    DamagedVersionError,
    MissingInputError,
    RegistryError,
    UnknownVersionError,
    UnverifiedVersionError,
)
from cxr.files import METADATA_FILE, scratch_folder
from cxr.models.metadata import ModelMetadata
from cxr.models.stored_files import DIGESTS_FILE, damaged_files, sha256
from cxr.promotion.facts import CommonFacts
from cxr.tracking.artifact_download import artifact_repository, download_files
from cxr.tracking.health import explain, first_line
from cxr.tracking.signatures import SIGNATURE_FILE
from cxr.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL_PATH = "artifacts/artifact"
"""Folder of network and metadata inside a version's files, as MLflow lays them out."""
DIGESTS = "digests"
"""Tag of a version: SHA-256 of its file ``digests.json``. Versions that an earlier program created have neither."""


@contextmanager
def ignore_missing() -> Iterator[None]:
    """Let a version, a model or a tag be missing, because nobody has it or another process has deleted it first."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def alias_versions(store: Store, registered_name: str) -> dict[str, str]:
    """Read all aliases of a registered model.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.

    Returns:
        Alias to version; empty for a model that is not registered yet.

    Raises:
        MissingInputError: if there is no such local store; none is created.
        RegistryError: if the store does not answer.
    """
    client = store.connect_existing()
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(registered_name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise RegistryError(f"cannot read the aliases of {registered_name}: {explain(error)}") from error
    return {str(alias): str(version) for alias, version in aliases.items()}


def read_facts(store: Store, version: ModelVersion, kind: type[CommonFacts]) -> CommonFacts:
    """Read what the promotion rules look at in a version.

    Args:
        store: the tracking store.
        version: a version of the registered model.
        kind: facts of a classifier, or of a detector.

    Returns:
        The facts.
    """
    return kind.from_tags(str(version.version), version.tags, missing_files(store, version))


def why_unverified(store: Store, version: ModelVersion) -> str | None:
    """Say why the files of a version are not those that a trusted key has signed.

    Args:
        store: the tracking store.
        version: a version of the registered model.

    Returns:
        The reason, with what to do; empty if they are; None if the store asks for no signatures.

    Raises:
        RegistryError: if the store does not answer.
    """
    if store.trusted_keys is None:
        return None
    try:
        with scratch_folder() as scratch:
            fetch_package(store, version, scratch)
    except (UnverifiedVersionError, DamagedVersionError) as error:
        return str(error)
    return ""


def fetch_version(store: Store, registered_name: str, number: str, folder: Path) -> Path:
    """Copy a version's network and metadata.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.
        number: number of the version.
        folder: an empty folder that exists.

    Returns:
        The folder that :meth:`cxr.inference.predictor.Predictor.load` reads, or, of a detector,
        :meth:`cxr.regions.predictor.RegionPredictor.load`.

    Raises:
        MissingInputError: if there is no such local store.
        UnknownVersionError: if there is no such version.
        RegistryError: if the store does not answer, or some of the version's files are gone.
    """
    client = store.connect_existing()
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version(registered_name, number)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise UnknownVersionError(
                f"expected a version of {registered_name}, received version={number}, which the store does not know; "
                "`cxr history` lists the decisions about its versions"
            ) from None
        raise RegistryError(f"cannot read version {number} of {registered_name}: {explain(error)}") from error
    return fetch_model(store, version, folder)


def fetch_model(store: Store, version: ModelVersion, folder: Path) -> Path:
    """Copy a version's network and metadata.

    Args:
        store: the tracking store.
        version: a version of the registered model.
        folder: an empty folder that exists.

    Returns:
        The folder that :meth:`cxr.inference.predictor.Predictor.load` reads, or, of a detector,
        :meth:`cxr.regions.predictor.RegionPredictor.load`.

    Raises:
        RegistryError: if files are gone or changed; an incomplete version must not be served.
        UnverifiedVersionError: if the store asks for signatures, and this version is not signed as it is.
    """
    if store.trusted_keys is not None:  # before anything of the version is read
        return fetch_package(store, version, folder) / MODEL_PATH
    missing = _absent_files(store, version)
    if missing:
        raise RegistryError(
            f"expected version {version.version} of {version.name} with all its files, received one without "
            f"{', '.join(missing)}: it cannot answer; restore the files, or register the model again (`cxr register`)"
        )
    model = _download(store, version, "", folder)
    _check_digests(version, model)
    return model


def fetch_package(store: Store, version: ModelVersion, folder: Path) -> Path:
    """Copy all files of a version, also those that only MLflow reads.

    Args:
        store: the tracking store.
        version: a version of the registered model.
        folder: an empty folder that exists.

    Returns:
        The folder that ``mlflow.pyfunc.load_model`` reads.

    Raises:
        RegistryError: if a file cannot be read from the store, or is not as it was registered.
        UnverifiedVersionError: if the store asks for signatures, and this version is not signed as it is.
    """
    title, keys = f"version {version.version} of {version.name}", store.trusted_keys
    if keys is not None:  # an unsigned version is not even copied
        with store.clear_errors(f"list the files of {title}"):
            entries = artifact_repository(store, files_location(store, version)).list_artifacts()
        if SIGNATURE_FILE not in {entry.path for entry in entries}:
            raise keys.unsigned(title)
    package = download_package_file(store, version, "", folder)
    if keys is not None:
        keys.check(package, title)
    _check_digests(version, package / MODEL_PATH)  # also against files that were signed as another version
    return package


def missing_files(store: Store, version: ModelVersion) -> tuple[str, ...]:
    """List the files that a version has lost; only its metadata is downloaded for that.

    A store that does not answer is an error, never a version without files.

    Args:
        store: the tracking store.
        version: a version of the registered model.

    Returns:
        Files that prediction needs and that are gone, relative to the version's model folder; empty for a complete
        version. Changed metadata count as gone.

    Raises:
        RegistryError: if the store does not answer.
    """
    try:
        return _absent_files(store, version)
    except DamagedVersionError:
        return (METADATA_FILE,)


def _absent_files(store: Store, version: ModelVersion) -> tuple[str, ...]:
    """Files as :func:`missing_files` lists them; raises DamagedVersionError if the metadata were changed."""
    with store.clear_errors(f"list the files of version {version.version} of {version.name}"):
        present = _list_files(store, version)
    if METADATA_FILE not in present:
        return (METADATA_FILE,)
    if DIGESTS in version.tags and DIGESTS_FILE not in present:
        return (DIGESTS_FILE,)
    try:
        metadata = read_metadata(store, version)
    except MissingInputError:
        return (METADATA_FILE,)
    return tuple(name for name in metadata.files if name not in present)


def read_metadata(store: Store, version: ModelVersion) -> ModelMetadata:
    """Read the metadata that a version carries.

    Args:
        store: the tracking store.
        version: a version of the registered model.

    Returns:
        The metadata.

    Raises:
        MissingInputError: if the file is no metadata.
        RegistryError: if the file cannot be read from the store, or is not as it was registered.
    """
    with scratch_folder() as scratch:
        model = _download(store, version, METADATA_FILE, scratch).parent
        if DIGESTS in version.tags:
            _download(store, version, DIGESTS_FILE, scratch)
            _check_digests(version, model)
        return ModelMetadata.read(model)


def _check_digests(version: ModelVersion, folder: Path) -> None:
    """Refuse copied files of a version that are not as they were registered."""
    expected = version.tags.get(DIGESTS)
    if expected is None:
        return
    digests = folder / DIGESTS_FILE
    digests_are_whole = digests.is_file() and sha256(digests) == expected
    damaged = damaged_files(folder) if digests_are_whole else [DIGESTS_FILE]
    if damaged:
        raise DamagedVersionError(
            f"expected version {version.version} of {version.name} as it was registered, received damaged or changed "
            f"files ({', '.join(damaged)}); restore them from a copy; or run `cxr rollback`, delete the version in "
            "MLflow's page, and register the model again (`cxr register`)"
        )


def download_package_file(store: Store, version: ModelVersion, path: str, folder: Path) -> Path:
    """Copy a file of a version; a signature is not checked.

    Args:
        store: the tracking store.
        version: a version of the registered model.
        path: the file or folder among the version's files; empty for all.
        folder: where to copy it to.

    Returns:
        Where the copy is.

    Raises:
        RegistryError: if it cannot be read from the store.
    """
    from mlflow.exceptions import MlflowException

    try:
        return download_files(store, files_location(store, version), path, folder)
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"cannot read {path or 'the files'} of version {version.version} of {version.name}: {first_line(error)}; "
            "try again; if the file is gone, restore it, or register the model again (`cxr register`)"
        ) from error


def _download(store: Store, version: ModelVersion, name: str, folder: Path) -> Path:
    return download_package_file(store, version, f"{MODEL_PATH}/{name}".rstrip("/"), folder)


def _list_files(store: Store, version: ModelVersion) -> set[str]:
    """Files inside the version's model folder, relative to it, at any depth."""
    repository = artifact_repository(store, files_location(store, version))
    files, folders = set(), [MODEL_PATH]
    while folders:
        for entry in repository.list_artifacts(folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                files.add(entry.path.removeprefix(f"{MODEL_PATH}/"))
    return files


def files_location(store: Store, version: ModelVersion) -> str:
    """Find out where the files of a version are.

    Args:
        store: the tracking store.
        version: a version of the registered model.

    Returns:
        MLflow's address of the folder. For "models:/NAME/VERSION" MLflow would ask its global store.
    """
    client = store.client  # a store that does not answer is reported here
    if version.model_id:
        return str(client.get_logged_model(version.model_id).artifact_location)
    if version.source and not version.source.startswith("models:"):
        return str(version.source)  # the store would answer the same, in two more requests
    return str(client.get_model_version_download_uri(version.name, version.version))

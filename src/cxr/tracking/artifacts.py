"""The files behind a version: whether they are all there, and a copy of them that predicts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import MissingInputError, RegistryError
from cxr.files import METADATA_FILE
from cxr.models.metadata import ModelCard
from cxr.tracking.connection import address, client
from cxr.tracking.health import plainly

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

MODEL_PATH = "artifacts/artifact"
"""Folder of network and card inside a version's files, as MLflow lays them out."""


def absent_files(uri: str, version: ModelVersion) -> tuple[str, ...]:
    """Find out what a version lacks; only its card is downloaded for that.

    A store that doesn't answer is an error, never a version without files.

    Args:
        uri: address of the store.
        version: a version of the registered model.

    Returns:
        Files that prediction needs and that are gone, relative to the version's model folder; empty for a
        whole version.

    Raises:
        RegistryError: if the store doesn't answer.
    """
    with plainly(uri, f"list the files of version {version.version} of {version.name}"):
        present = _listed(uri, version)
    if METADATA_FILE not in present:
        return (METADATA_FILE,)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            card = ModelCard.read(_download(uri, version, METADATA_FILE, Path(scratch)).parent)
        except MissingInputError:
            return (METADATA_FILE,)
    return tuple(name for name in card.files if name not in present)


def fetch_model(uri: str, version: ModelVersion, folder: Path) -> Path:
    """Copy a version's network and card.

    Args:
        uri: address of the store.
        version: a version of the registered model.
        folder: an empty folder that exists.

    Returns:
        The folder that :meth:`cxr.inference.predictor.Predictor.load` reads.

    Raises:
        RegistryError: if files are gone; nothing may be served from what is left.
    """
    absent = absent_files(uri, version)
    if absent:
        raise RegistryError(
            f"expected version {version.version} of {version.name} with all its files, received one without "
            f"{', '.join(absent)}: it cannot answer; restore the files, or register the model again (`cxr register`)"
        )
    return _download(uri, version, "", folder)


def _download(uri: str, version: ModelVersion, name: str, folder: Path) -> Path:
    from mlflow.exceptions import MlflowException

    where = f"{MODEL_PATH}/{name}".rstrip("/")
    try:
        return Path(_repository(uri, version).download_artifacts(where, str(folder)))
    except (MlflowException, OSError) as error:
        raise RegistryError(
            f"cannot read {where} of version {version.version} of {version.name}: {str(error).partition(chr(10))[0]}"
        ) from error


def _listed(uri: str, version: ModelVersion) -> set[str]:
    """Files inside the version's model folder, relative to it, at any depth."""
    files = _repository(uri, version)
    found, folders = set(), [MODEL_PATH]
    while folders:
        for entry in files.list_artifacts(folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                found.add(entry.path.removeprefix(f"{MODEL_PATH}/"))
    return found


def _repository(uri: str, version: ModelVersion) -> ArtifactRepository:
    # By "models:/NAME/VERSION" MLflow would look in its global store, whatever address it is given.
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    connected, store = client(uri), address(uri)
    if version.model_id:
        source = connected.get_logged_model(version.model_id).artifact_location
    else:
        source = connected.get_model_version_download_uri(version.name, version.version)
    return get_artifact_repository(source, tracking_uri=store, registry_uri=store)

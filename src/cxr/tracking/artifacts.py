"""The files behind a version: whether they are all there, and a copy of them that predicts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.card import CARD_NAME, ModelCard
from cxr.errors import MissingInputError, RegistryError
from cxr.tracking.connection import address
from cxr.tracking.contact import plainly

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

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
    if CARD_NAME not in present:
        return (CARD_NAME,)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            card = ModelCard.read(_download(uri, version, CARD_NAME, Path(scratch)).parent)
        except MissingInputError:
            return (CARD_NAME,)
    return tuple(name for name in card.files if name not in present)


def fetch_model(uri: str, version: ModelVersion, folder: Path) -> Path:
    """Copy a version's network and card.

    Args:
        uri: address of the store.
        version: a version of the registered model.
        folder: an empty folder that exists.

    Returns:
        The folder that :meth:`cxr.prediction.Predictor.load` reads.

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
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    where = f"models:/{version.name}/{version.version}/{MODEL_PATH}/{name}".rstrip("/")
    store = address(uri)
    try:
        return Path(download_artifacts(where, dst_path=str(folder), tracking_uri=store, registry_uri=store))
    except (MlflowException, OSError) as error:
        raise RegistryError(f"cannot read {where}: {str(error).partition(chr(10))[0]}") from error


def _listed(uri: str, version: ModelVersion) -> set[str]:
    """Files inside the version's model folder, relative to it, at any depth."""
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    store = address(uri)
    files = ModelsArtifactRepository(f"models:/{version.name}/{version.version}", store, store)
    found, folders = set(), [MODEL_PATH]
    while folders:
        for entry in files.list_artifacts(folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                found.add(entry.path.removeprefix(f"{MODEL_PATH}/"))
    return found

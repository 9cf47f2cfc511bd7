"""What serving asks the registry: who has an alias now, and the files of a version."""

from __future__ import annotations

import os
from pathlib import Path

from cxr.errors import RegistryError
from cxr.tracking.artifacts import fetch_model
from cxr.tracking.connection import existing_client

BRIEF = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""MLflow's own values make one question to an absent server last for minutes."""


def ask_briefly() -> None:
    """Let questions to an absent server fail within seconds, for processes that ask again anyway.

    What is set in the environment already stays.
    """
    for name, value in BRIEF.items():
        os.environ.setdefault(name, value)


def alias_versions(uri: str, registered_name: str) -> dict[str, str]:
    """Read all aliases of a registered model.

    Args:
        uri: address of the store.
        registered_name: name of the registered model.

    Returns:
        Alias to version; empty for a model that isn't registered yet.

    Raises:
        MissingInputError: if there is no such local store; none is made.
        RegistryError: if the store doesn't answer.
    """
    connected = existing_client(uri)
    from mlflow.exceptions import MlflowException

    try:
        found = connected.get_registered_model(registered_name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise RegistryError(f"cannot read the aliases of {registered_name}: {_first_line(error)}") from error
    return {str(alias): str(version) for alias, version in found.items()}


def fetch_version(uri: str, registered_name: str, version: str, folder: Path) -> Path:
    """Copy a version's network and card.

    Args:
        uri: address of the store.
        registered_name: name of the registered model.
        version: number of the version.
        folder: an empty folder that exists.

    Returns:
        The folder that :meth:`cxr.inference.predictor.Predictor.load` reads.

    Raises:
        MissingInputError: if there is no such local store.
        RegistryError: if the store doesn't answer, or the version or some of its files are gone.
    """
    connected = existing_client(uri)
    from mlflow.exceptions import MlflowException

    try:
        found = connected.get_model_version(registered_name, version)
    except MlflowException as error:
        raise RegistryError(f"cannot read version {version} of {registered_name}: {_first_line(error)}") from error
    return fetch_model(uri, found, folder)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

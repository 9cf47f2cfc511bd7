"""Where MLflow lives: addresses, quiet clients, experiments and the first creation of the local store."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import MissingInputError, RegistryError
from cxr.fast_import import load
from cxr.tracking.health import first_line, is_server, reach, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
ARTIFACTS = "mlruns"
"""Folder of run artifacts, beside the local store's file."""
_held = threading.local()
"""Locks of local stores that a thread has."""


def experiment_name(base: str, dataset_kind: str) -> str:
    """Keep runs on drawn images apart from runs on radiographs of people.

    Args:
        base: the experiment's name in ``params.yaml``, e.g. ``"pneumonia"``.
        dataset_kind: ``"phantom"`` or ``"patients"``.

    Returns:
        ``base``, with ``" (phantoms)"`` behind it for drawn images.
    """
    return f"{base} (phantoms)" if dataset_kind == "phantom" else base


def client(uri: str) -> MlflowClient:
    """Connect to a tracking server, creating the local store if it isn't there.

    Several processes may do this at once: the store is created under a lock. A server that doesn't answer is told
    within seconds.

    Args:
        uri: ``sqlite:///mlflow.db`` (relative to the working folder) or a server's ``http(s)://`` address.

    Returns:
        A client for both tracking and registry.

    Raises:
        RegistryError: if the server or store doesn't answer.
    """
    _quieten()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    store = address(uri)
    if is_server(uri):
        reach(uri)
        return MlflowClient(tracking_uri=store, registry_uri=store)
    with creation_lock(uri):
        try:
            connected = MlflowClient(tracking_uri=store, registry_uri=store)
            connected.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise unreachable(uri, f"{first_line(error)}; start the server, or use sqlite:///mlflow.db") from error
    return connected


def existing_client(uri: str) -> MlflowClient:
    """Connect to a store that must be there already: who only asks makes none.

    Args:
        uri: address of the store.

    Returns:
        A client for both tracking and registry.

    Raises:
        MissingInputError: if there is no such store.
        RegistryError: if the server or store doesn't answer.
    """
    file = sqlite_file(uri)
    if not uri or (file is not None and not file.exists()):
        raise MissingInputError(
            f"expected an MLflow store with registered models, received tracking_uri={uri!r} without one; "
            "run `cxr register`, or name another store"
        )
    return client(uri)


def ensure_reachable(uri: str) -> None:
    """Find out before long work whether its result can be logged.

    Args:
        uri: address of the store; an empty text needs none.

    Raises:
        RegistryError: if the server or store doesn't answer.
    """
    if uri:
        client(uri)


def experiment_id(connected: MlflowClient, uri: str, name: str) -> str:
    """Find or create an experiment.

    Args:
        connected: client of ``uri``.
        uri: address of the store; artifacts of a local one are kept in ``mlruns/`` beside its file.
        name: the experiment's full name.

    Returns:
        MLflow's id of the experiment.

    Raises:
        RegistryError: if the experiment can't be made, or was deleted on the server and not yet purged.
    """
    from mlflow.exceptions import MlflowException

    with creation_lock(uri):
        found = connected.get_experiment_by_name(name)
        if found is None:
            try:
                return str(connected.create_experiment(name, artifact_location=artifact_location(uri)))
            except MlflowException as error:
                found = connected.get_experiment_by_name(name)  # on a server, another process may have been faster
                if found is None:
                    raise RegistryError(f"cannot create the experiment {name!r}: {first_line(error)}") from error
    if found.lifecycle_stage != "active":
        raise RegistryError(
            f"expected an active experiment, received experiment={name!r} (deleted); "
            "restore it in MLflow's page, or choose another name"
        )
    return str(found.experiment_id)


@contextmanager
def creation_lock(uri: str) -> Iterator[None]:
    """Let one thread of one process at a time create things in a local store; a server looks after itself.

    Who has the lock may ask for it again.

    Args:
        uri: address of the store.
    """
    file = sqlite_file(uri)
    held: set[Path] = _held.__dict__.setdefault("files", set())
    if file is None or file in held:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{file}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held.add(file)
        try:
            yield
        finally:
            held.discard(file)


def sqlite_file(uri: str) -> Path | None:
    """File of a local store.

    Args:
        uri: address of the store.

    Returns:
        Its absolute path, or None for a server.
    """
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def address(uri: str) -> str:
    """Address that MLflow itself may be given, whatever the working folder is.

    Args:
        uri: address of the store as in ``params.yaml``.

    Returns:
        The same, with the absolute path of a local store's file.
    """
    file = sqlite_file(uri)
    return uri if file is None else f"{SQLITE}{file}"


def artifact_location(uri: str) -> str | None:
    """Where an experiment of a local store keeps its files.

    Args:
        uri: address of the store.

    Returns:
        A folder beside the store's file; None for a server, which decides itself.
    """
    # MLflow's own default would be relative to whatever folder a process happens to run in.
    file = sqlite_file(uri)
    return None if file is None else str(file.parent / ARTIFACTS)


def _quieten() -> None:
    """Keep MLflow from sending usage statistics and from filling the console."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    load("mlflow")  # sets the level of its own logger when it is imported
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It tells each further try; what comes of them is told in plain words.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # It misses pip in environments made by uv; versions name their packages themselves.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)

"""Downloads of files from a store: from the addresses that its server signs, or through the server itself.

An MLflow server with an S3 store signs addresses of the S3 store, as the server itself knows it, and MLflow's client
downloads from there. Not every client reaches that address: it may be a name that only the server's network knows.
MLflow's client then tries for a minute per file and fails.
"""

from __future__ import annotations

import logging
import os
import threading
from http.client import NOT_IMPLEMENTED
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cxr.tracking import health

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from requests import Response

    from cxr.tracking.store import Store

log = logging.getLogger(__name__)

SIGNED_DOWNLOADS = "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"
"""MLflow's variable: ``false`` downloads through the server. Where it is set, nothing is checked."""
_SERVICE, _SIGNING_SERVICE = "/mlflow-artifacts/artifacts", "/mlflow-artifacts/presigned"

_lock = threading.Lock()
_servers_checked: set[str] = set()


def artifact_repository(store: Store, location: str) -> ArtifactRepository:
    """Open a folder of a store's files.

    Args:
        store: the tracking store.
        location: MLflow's address of the folder, e.g. ``mlflow-artifacts:/1/models/m-1/artifacts``.

    Returns:
        MLflow's object that lists and downloads the files.
    """
    # MLflow's shorter functions ask its global store, whatever address they are given.
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=store.address, registry_uri=store.address)


def download_files(store: Store, location: str, path: str, folder: Path) -> Path:
    """Copy a file or a folder from a store.

    Args:
        store: the tracking store.
        location: MLflow's address of a folder of files.
        path: the file or folder inside; empty for all.
        folder: where to copy it to; created if it does not exist.

    Returns:
        Where the copy is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    repository = artifact_repository(store, location)
    _choose_way(repository, path)
    return Path(repository.download_artifacts(path, str(folder)))


def _choose_way(repository: ArtifactRepository, path: str) -> None:
    """Switch signed addresses off for this process if the server gives such that cannot be reached from here."""
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    if not isinstance(repository, MlflowArtifactsRepository):
        return
    server = repository.artifact_uri.partition(_SERVICE)[0]
    with _lock:
        if SIGNED_DOWNLOADS in os.environ or server in _servers_checked:
            return
        response = _sign(repository, path)
        if response.status_code not in {200, NOT_IMPLEMENTED}:
            return  # a file that is not there, or a server in trouble: the next download asks again
        _servers_checked.add(server)
        if response.status_code == NOT_IMPLEMENTED:  # a server without S3 signs nothing
            return
        signed = response.json()
        problem = _problem_of(signed["url"], signed.get("headers") or {})
        if problem is None:
            return
        # The only switch that MLflow has. Its client reads it for each file; child processes inherit it.
        os.environ[SIGNED_DOWNLOADS] = "false"
        origin = health.hide_passwords(urlsplit(signed["url"])._replace(path="", query="").geturl())
        log.warning(
            "the MLflow server sends its clients to %s for files, which cannot be used from here: %s. This process "
            "downloads them through the server. To change that, start the server with an AWS_ENDPOINT_URL that its "
            "clients reach; to say that this way is right, set %s=false here",
            origin, problem, SIGNED_DOWNLOADS,
        )  # fmt: skip


def _sign(repository: ArtifactRepository, path: str) -> Response:
    """Ask the server for the signed address of a file at a path, as MLflow's client does before each download."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    base, _, folder = repository.artifact_uri.partition(_SERVICE)
    endpoint = f"{_SIGNING_SERVICE}{folder}/{_first_file(repository, path)}"
    return http_request(get_default_host_creds(base), endpoint, "GET", raise_on_status=False)


def _first_file(repository: ArtifactRepository, path: str) -> str:
    """A file below a path; the path itself if it is a file."""
    while entries := repository.list_artifacts(path or None):
        path = entries[0].path
    return path


def _problem_of(address: str, headers: dict[str, str]) -> str | None:
    """Why a signed address cannot be used from here; None if it can."""
    import requests

    try:
        with requests.get(
            address, headers={**headers, "Range": "bytes=0-0"}, timeout=health.SECONDS, stream=True
        ) as response:
            # 416: the file is empty.
            usable = response.ok or response.status_code == 416
            return None if usable else f"it answers with status {response.status_code}"
    except requests.RequestException as error:
        return health.connection_problem(error, address, health.SECONDS)

"""A real MLflow server on loopback, with a local store behind it and webhooks to loopback allowed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from cxr.promotion.candidates import RunFolders, find_candidates
from cxr.tracking.finished_run import log_evaluation
from cxr.tracking.relocation import correct_addresses
from cxr.tracking.store import Store
from cxr.tracking.versions import ensure_version
from support.loopback import MlflowServer
from support.model_folders import ModelFolders, write_models, write_store
from support.shared_folders import made_once

NAME = "pneumonia-classifier"
WEBHOOK_CACHE_SECONDS = 1
"""Seconds for which the server caches the list of webhooks; it notifies a new one only afterwards."""
FOLLOW_SECONDS = 15.0
"""Seconds within which the service must follow a move of an alias."""


class WebhookServer(MlflowServer):
    """A server that may send webhooks to loopback and notices new ones soon."""

    def __init__(self, folder: Path) -> None:
        settings = {
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
            "MLFLOW_WEBHOOK_CACHE_TTL": str(WEBHOOK_CACHE_SECONDS),
        }
        super().__init__(folder, environment=settings)


def wait_until(condition: Callable[[], object], seconds: float = FOLLOW_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def register_versions(
    folder: Path, uri: str, name: str = NAME, models: Sequence[str] = ("three_block", "shallow"), **changes: Any
) -> ModelFolders:
    """Register different networks as versions 1, 2 ..., without aliases, and return their folders."""
    folders = write_models(folder, models, **changes)
    store = Store(uri)
    store.client.create_registered_model(name)
    for candidate in find_candidates(RunFolders(folders.models, folders.evaluations, folders.splits, include=models)):
        run_id = log_evaluation(store, candidate.trained, candidate.evaluation, experiment="pneumonia")
        ensure_version(store, name, candidate, run_id)
    return folders


def write_registry(root: Path) -> tuple[str, ModelFolders]:
    """Write a local store with versions 1 and 2 into a folder, copied from one that is made once.

    Returns:
        Address of the store, and the folders that the versions were registered from, in ``run``.
    """

    def make(folder: Path) -> None:
        folder.mkdir()
        register_versions(folder / "run", write_store(folder))

    shutil.copytree(made_once("registry", make), root, dirs_exist_ok=True)
    correct_addresses((root / "mlflow.db").absolute())
    run = root / "run"
    folders = ModelFolders(run / "models", run / "evaluations", sorted((run / "images").iterdir()))
    return f"sqlite:///{root}/mlflow.db", folders

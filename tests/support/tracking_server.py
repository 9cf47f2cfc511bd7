"""A real MLflow server on loopback, with a local store behind it and webhooks to loopback allowed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from cxr.tracking.connection import client
from cxr.tracking.runs import log_evaluation
from cxr.tracking.versions import candidates, ensure_version
from support.loopback import MlflowServer
from support.model_folders import Folders, write_models

NAME = "pneumonia-classifier"
REMEMBERS = 1
"""Seconds for which the server remembers which webhooks there are: one that is newer isn't told before."""
SOON = 15.0
"""Seconds within which a move of an alias must have been followed."""


class TrackingServer(MlflowServer):
    """One server that may send webhooks to loopback, and soon learns of new ones."""

    def __init__(self, folder: Path) -> None:
        settings = {
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
            "MLFLOW_WEBHOOK_CACHE_TTL": str(REMEMBERS),
        }
        super().__init__(folder, environment=settings)


def wait_until(true: Callable[[], object], seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def register_versions(
    folder: Path, uri: str, name: str = NAME, models: Sequence[str] = ("three_block", "shallow"), **changes: Any
) -> Folders:
    """Register different networks as versions 1, 2 ..., without aliases; gives where their folders are."""
    folders = write_models(folder, models, **changes)
    connected = client(uri)
    connected.create_registered_model(name)
    for one in candidates(folders.models, folders.evaluations, models):
        run_id = log_evaluation(one.trained, one.evaluation, uri=uri, experiment="pneumonia")
        ensure_version(connected, uri, name, one, str(run_id))
    return folders

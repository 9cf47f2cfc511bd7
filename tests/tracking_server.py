"""A real MLflow server on loopback, with a local store behind it and webhooks to loopback allowed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from cxr.tracking.connection import client
from cxr.tracking.runs import log_evaluation
from cxr.tracking.versions import candidates, ensure_version
from model_folders import Folders, write_models, write_store

NAME = "pneumonia-classifier"
SOON = 15.0
"""Seconds within which a move of an alias must have been followed."""


class TrackingServer:
    """One server; it can be stopped and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = write_store(folder)
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._key = Fernet.generate_key().decode()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": self._key,
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--workers", "1", "--backend-store-uri", self.store),
                *("--artifacts-destination", str(self.folder / "files")),
            ],
            env={**os.environ, **settings},
            stdout=(self.folder / "server.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_until(self._answers, 120)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its workers, too
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self.folder / "server.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


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

"""An MLflow server for runs on this machine: containers reach it, other machines don't."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from cxr.errors import InstallationError
from cxr.kubeflow.container_engine import host_name

PATIENCE = 180
"""Seconds that the server may take to start on a busy machine."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run a server whose store and files are in a folder.

    Args:
        folder: the folder; made if it isn't there.

    Yields:
        The server's address as containers reach it.

    Raises:
        InstallationError: if it doesn't start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")),
        *("--allowed-hosts", f"127.0.0.1:{port},localhost:{port},{host_name()}:{port}"),
    ]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    written = folder / "server.log"
    with written.open("ab") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, cwd=folder, start_new_session=True
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", written)
        yield f"http://{host_name()}:{port}"
    finally:
        _end(server)


def _wait(server: subprocess.Popen[bytes], health: str, written: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    last = written.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    raise InstallationError(
        f"expected MLflow's server to start, received exit status {server.poll()}, {' / '.join(last)}; see {written}"
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server with its workers, which are of one group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=10)
            return

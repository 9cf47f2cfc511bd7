"""An MLflow server for runs on this machine. Only this machine and its containers reach it."""

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

START_TIMEOUT = 180
"""Seconds that the server may take to start on a busy machine."""


@contextlib.contextmanager
def run_tracking_server(folder: Path) -> Iterator[str]:
    """Run a server that keeps its store and its files in a folder.

    Args:
        folder: the folder; it is created if it does not exist.

    Yields:
        The server's address as containers reach it.

    Raises:
        InstallationError: if it does not start.
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
    log_file = folder / "server.log"
    with log_file.open("ab") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, cwd=folder, start_new_session=True
        )
    try:
        _wait_until_healthy(server, f"http://127.0.0.1:{port}/health", log_file)
        yield f"http://{host_name()}:{port}"
    finally:
        _stop(server)


def _wait_until_healthy(server: subprocess.Popen[bytes], health: str, log_file: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    last_lines = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    raise InstallationError(
        f"expected MLflow's server to start, received exit status {server.poll()}, {' / '.join(last_lines)}; "
        f"see {log_file}"
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the server and its workers, which are in the same process group."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=10)
            return

"""A real MLflow server on loopback, and a gate in front of it that can be shut, held or cut."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from support.forked_processes import ForkedProcess
from support.model_folders import write_store

START_SECONDS = 180
"""Time limit for the start of a server on a busy machine."""
SERVE = """
import os, runpy, sys
import mlflow.server
from mlflow.cli import cli

folder, *options = sys.argv[1:]
os.setsid()
os.chdir(folder)

def become(command, extra_env, **_):
    os.environ.update(extra_env)
    sys.argv = command[2:]
    runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)

mlflow.server._exec_cmd = become
cli(["server", *options])
"""
"""``mlflow server`` in a group of its own. It becomes the process that it would start and that would import all again.

Started as a command, it takes seven seconds of CPU. ``support.servers`` starts it in that way.
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """``mlflow server`` with its store and its files in one folder; it can be killed, frozen and started again."""

    def __init__(self, folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = f"sqlite:///{folder}/server.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._options = options
        self._environment = dict(environment or {})
        self._process: ForkedProcess | None = None

    def start(self) -> MlflowServer:
        if not (self.folder / "server.db").exists():
            write_store(self.folder, "server.db")
        options = [
            *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", "--backend-store-uri", self.store),
            *("--artifacts-destination", str(self.folder / "files"), *self._options),
        ]
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment |= self._environment
        log = self.folder / "server.log"
        self._process = ForkedProcess(SERVE, str(self.folder), *options, environment=environment, log=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self.kill()
        raise RuntimeError((self.folder / "server.log").read_text()[-3000:])

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate(60)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)


class Gate:
    """A TCP proxy that forwards everything, holds everything back, refuses, or cuts each connection in the middle."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._mode: Literal["open", "held", "shut"] = "open"
        self._remaining_bytes: int | None = None
        self._mode_afterwards: Literal["held", "shut"] = "shut"
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        self._mode, self._remaining_bytes = "open", None

    def hold(self) -> None:
        """Accept connections and never answer, as a frozen server does."""
        self._mode = "held"

    def shut(self) -> None:
        """Close connections at once."""
        self._mode = "shut"
        self._drop()

    def after(self, sent: int, mode: Literal["held", "shut"] = "shut") -> None:
        """Forward this many more bytes to the server, then hold or shut in the middle of a message."""
        self._remaining_bytes, self._mode_afterwards = sent, mode

    @property
    def mode(self) -> str:
        return self._mode

    def close(self) -> None:
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        for connection in list(self._connections):
            _close(connection)
        self._connections.clear()

    def _wait(self) -> None:
        while self._mode == "held":
            time.sleep(0.05)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._mode == "shut":
                _close(client)
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            self._connections += [client, server]
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, to_server: bool) -> None:
        try:
            while data := source.recv(65536):
                held_back = b""
                if to_server and self._remaining_bytes is not None:
                    data, held_back = data[: self._remaining_bytes], data[self._remaining_bytes :]
                    self._remaining_bytes -= len(data)
                if not held_back:
                    self._wait()
                    sink.sendall(data)
                    continue
                sink.sendall(data)
                self._mode = self._mode_afterwards
                if self._mode == "shut":
                    self._drop()
                    return
                self._wait()
                sink.sendall(held_back)
        except OSError:
            pass
        _close(source)
        _close(sink)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()

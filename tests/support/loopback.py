"""A real MLflow server on loopback, and a gate before it that can be shut, held or cut."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from support.model_folders import write_store

START = 180
"""Seconds that a server may take to start on a machine that does other things besides."""


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
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> MlflowServer:
        if not (self.folder / "server.db").exists():
            write_store(self.folder, "server.db")
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", self.store),
            *("--artifacts-destination", str(self.folder / "files"), *self._options),
        ]
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment |= self._environment
        with (self.folder / "server.log").open("ab") as log:
            # A group of its own, so that its workers are ended with it.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=self.folder
            )
        deadline = time.monotonic() + START
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
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)


class Gate:
    """A TCP proxy: it passes everything on, holds everything back, refuses, or cuts each connection in the middle."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._mode: Literal["open", "held", "shut"] = "open"
        self._left: int | None = None
        self._then: Literal["held", "shut"] = "shut"
        self._pairs: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        self._mode, self._left = "open", None

    def hold(self) -> None:
        """Accept connections and never answer, as a frozen server does."""
        self._mode = "held"

    def shut(self) -> None:
        """End connections at once."""
        self._mode = "shut"
        self._drop()

    def after(self, sent: int, then: Literal["held", "shut"] = "shut") -> None:
        """Pass this many further bytes towards the server in all, then hold or shut in the middle of them."""
        self._left, self._then = sent, then

    @property
    def mode(self) -> str:
        return self._mode

    def close(self) -> None:
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        for one in list(self._pairs):
            _end(one)
        self._pairs.clear()

    def _wait(self) -> None:
        while self._mode == "held":
            time.sleep(0.05)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._mode == "shut":
                _end(near)
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._pairs += [near, far]
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        try:
            while data := source.recv(65536):
                rest = b""
                if outward and self._left is not None:
                    data, rest = data[: self._left], data[self._left :]
                    self._left -= len(data)
                if not rest:
                    self._wait()
                    sink.sendall(data)
                    continue
                sink.sendall(data)
                self._mode = self._then
                if self._mode == "shut":
                    self._drop()
                    return
                self._wait()
                sink.sendall(rest)
        except OSError:
            pass
        _end(source)
        _end(sink)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()

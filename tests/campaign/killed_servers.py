"""Kills the service and its workers while clients ask it, and looks whether it answers again.

``python -m campaign.killed_servers PROJECT SEED SECONDS`` prints one line of JSON per kill.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from campaign.outcomes import Attempt
from campaign.small_project import TRAINED, python_environment
from support.loopback import free_port
from support.rest_service import worker_processes

START_SECONDS = 120.0


class Service:
    """A running service of one model."""

    def __init__(self, model: Path, port: int, log: Path) -> None:
        """Start it, and wait until it is ready.

        Args:
            model: folder of a trained and evaluated model.
            port: a free port.
            log: file for its output.
        """
        self.port = port
        command = [sys.executable, "-m", "cxr.cli.main", "serve", "--model", str(model), "--port", str(port)]
        environment = python_environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self.wait_until_ready()

    def status(self, body: bytes | None = None) -> int:
        """Ask once; 0 if there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            try:
                if body is None:
                    connection.request("GET", "/ready")
                else:
                    connection.request("POST", "/v1/predictions", body, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                return 0
            return response.status

    def wait_until_ready(self) -> None:
        """Wait for ``/ready``.

        Raises:
            TimeoutError: if it does not come.
        """
        deadline = time.monotonic() + START_SECONDS
        while self.status() != 200:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError("the service does not become ready")
            time.sleep(0.2)

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return worker_processes(self.process.pid)


@contextmanager
def _clients(service: Service, image: bytes) -> Iterator[list[int]]:
    """Four clients that ask without a pause; their statuses."""
    statuses: list[int] = []
    stopped = threading.Event()

    def ask() -> None:
        while not stopped.is_set():
            statuses.append(service.status(image))
            if statuses[-1] == 0:
                time.sleep(0.1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def kill_servers(model: Path, image: bytes, folder: Path, seed: int, deadline: float) -> Iterator[Attempt]:
    """Kill a worker, or the whole service, at random moments under requests.

    Args:
        model: folder of a trained and evaluated model.
        image: a radiograph as JPEG.
        folder: for the log.
        seed: seed of the campaign.
        deadline: value of ``time.monotonic()`` at which no further attempt begins.

    Yields:
        One attempt per kill.
    """
    log = folder / "service.log"
    service = Service(model, free_port(), log)
    number = 0
    try:
        while time.monotonic() < deadline:
            generator = np.random.default_rng([seed, number])
            with _clients(service, image) as statuses:
                _wait_for_prediction(statuses)
                time.sleep(float(generator.uniform(0.1, 1.5)))
                if number % 3:
                    os.kill(int(generator.choice(service.workers())), signal.SIGKILL)
                    time.sleep(2.0)
                else:
                    workers = service.workers()  # one that takes the place of a killed one may be new
                    service.process.kill()
                    service.process.wait()
            # A request that the killed process had accepted has no answer; any other status is a fault.
            wrong = [f"status {status}" for status in sorted(set(statuses) - {0, 200, 503})]
            try:
                if number % 3 == 0:
                    wrong += _outliving(workers)
                    service = Service(model, service.port, log)
                service.wait_until_ready()
                if service.status(image) != 200:
                    wrong.append("no prediction afterwards")
            except TimeoutError as error:
                wrong.append(str(error))
            kind = "a worker" if number % 3 else "the service, then a new one"
            yield Attempt(f"SIGKILL of {kind}, under requests", number, "answers again", ", ".join(wrong))
            number += 1
    finally:
        service.process.terminate()
        service.process.wait()


def _wait_for_prediction(statuses: list[int]) -> None:
    """Wait until the clients have one, so that the kill meets requests."""
    deadline = time.monotonic() + START_SECONDS
    while 200 not in statuses and time.monotonic() < deadline:
        time.sleep(0.05)


def _outliving(workers: list[int]) -> list[str]:
    """Workers of a killed service that are still there after a while."""
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline and any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.2)
    return [f"worker {worker} outlives the service" for worker in workers if Path(f"/proc/{worker}").exists()]


if __name__ == "__main__":
    PROJECT, SEED, SECONDS = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    IMAGE = next((PROJECT / "data").rglob("*.jpeg")).read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        for entry in kill_servers(PROJECT / TRAINED, IMAGE, Path(scratch), SEED, time.monotonic() + SECONDS):
            entry.print()

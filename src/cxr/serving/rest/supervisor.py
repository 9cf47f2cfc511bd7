"""The supervisor: binds the socket, keeps the wanted number of workers, and ends them in good order."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cxr.errors import ParameterError, ServiceError
from cxr.serving.rest.cpu import available_cores, divide
from cxr.serving.rest.settings import Settings
from cxr.serving.rest.worker import CLOSED, READY, WAKE, End, Failed, work

log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before a worker that ended is replaced: doubled while replacements end, too, up to the second."""
PATIENCE = 5.0
"""Seconds that a worker has to end beyond what its running requests have."""


def bind(host: str, port: int) -> socket.socket:
    """Take an address; nobody listens there before the first worker is ready.

    Args:
        host: address of this machine.
        port: port; 0 takes a free one.

    Returns:
        The bound socket.

    Raises:
        ParameterError: if the address cannot be had.
    """
    found = None
    try:
        first, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = first
        # Only where it knows the protocol, asyncio sends the end of an answer at once; else a client that keeps its
        # connection waits 40 ms for each.
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        if found is not None:
            found.close()
        raise ParameterError(
            [f"expected a free address, received host={host}, port={port} ({error.strerror}); choose another port"]
        ) from error
    return found


@dataclass
class _Worker:
    """A worker as its supervisor sees it."""

    number: int
    process: BaseProcess
    line: Connection
    ready: bool = False


@dataclass
class _Vacancy:
    """A place whose worker has ended: when it is filled again."""

    number: int
    due: float


@dataclass
class Supervisor:
    """Runs workers until it is interrupted.

    Attributes:
        settings: what the service was told.
        shared: the bound socket.
    """

    settings: Settings
    shared: socket.socket
    _workers: list[_Worker] = field(default_factory=list)
    _vacancies: list[_Vacancy] = field(default_factory=list)
    _delays: dict[int, float] = field(default_factory=dict)
    _told: bool = False

    @property
    def url(self) -> str:
        """Address of the service."""
        host, port = self.shared.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> None:
        """Run until an exception, such as an interrupt, ends it; the workers then end in good order.

        Raises:
            ServiceError: if a worker cannot start, for a reason that concerns all of them.
        """
        with tempfile.TemporaryDirectory(prefix="cxr-metrics-") as folder:
            # Read when the workers import what counts and what computes.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            for name, value in divide(available_cores() // self.settings.workers).items():
                os.environ.setdefault(name, value)
            from cxr.serving.rest.metrics import Measurements, forget

            counted = Measurements()
            notice = 0.0
            try:
                for number in range(self.settings.workers):
                    self._start(number)
                while True:
                    for lost in self._look():
                        forget(lost, Path(folder))
                        counted.replaced.inc()
            except SystemExit:  # SIGTERM: whoever sends requests here is told first
                notice = self.settings.notice_seconds
                raise
            finally:
                self._end(notice)

    def _start(self, number: int) -> None:
        context: Any = multiprocessing.get_context("spawn")
        near, far = context.Pipe()
        process = context.Process(
            target=work, args=(self.settings, number, self.shared, far), name=f"cxr-serve-{number}"
        )
        process.start()
        far.close()
        self._workers.append(_Worker(number, process, near))

    def _look(self) -> list[int]:
        """Wait for whatever happens next, and see to it; gives processes that have ended."""
        now = time.monotonic()
        due = min((one.due for one in self._vacancies), default=now + 60)
        known = {one.line: one for one in self._workers}
        heard = [self._hear(known[line]) for line in wait(list(known), max(0.0, due - now))]  # type: ignore[index]
        for vacancy in [one for one in self._vacancies if one.due <= time.monotonic()]:
            self._vacancies.remove(vacancy)
            self._start(vacancy.number)
        return [process for process in heard if process is not None]

    def _hear(self, worker: _Worker) -> int | None:
        try:
            word = worker.line.recv()
        except (EOFError, OSError):
            self._lost(worker)
            return worker.process.pid
        if word == WAKE:
            for one in self._workers:
                with suppress(OSError):
                    one.line.send(WAKE)
        elif word == READY:
            self._ready(worker)
        elif isinstance(word, Failed):
            if not self._told:  # what keeps the first worker from starting keeps all
                raise ServiceError(word.text, word.exit_status)
            log.warning("worker %d cannot start: %s", worker.number, word.text)
        return None

    def _ready(self, worker: _Worker) -> None:
        worker.ready = True
        self._delays.pop(worker.number, None)
        if not self._told:
            log.info("answering on %s with %d workers", self.url, self.settings.workers)
        self._told = True

    def _lost(self, worker: _Worker) -> None:
        worker.line.close()
        worker.process.join(PATIENCE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        self._workers.remove(worker)
        if not self._told and not worker.ready:
            raise ServiceError(
                f"expected worker {worker.number} to start, received its end with status {worker.process.exitcode}; "
                "see its last words above, and whether there is memory for each worker's model",
                1,
            )
        delay = self._delays.get(worker.number, FIRST_DELAY)
        self._delays[worker.number] = min(2 * delay, LONGEST_DELAY)
        self._vacancies.append(_Vacancy(worker.number, time.monotonic() + delay))
        log.warning(
            "worker %d ended with status %s; another takes its place in %g s",
            worker.number, worker.process.exitcode, delay,
        )  # fmt: skip

    def _end(self, notice: float) -> None:
        """End all workers; those that answer first answer their running requests."""
        try:
            for one in self._workers:
                with suppress(OSError):
                    one.line.send(End(notice)) if one.ready else one.process.kill()
            deadline = time.monotonic() + notice + self.settings.end_seconds + PATIENCE
            self._wait_closed(deadline)
            # Nobody takes further connections now: they are to be refused, not to wait.
            with suppress(OSError):
                self.shared.shutdown(socket.SHUT_RDWR)
            for one in self._workers:
                one.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for one in self._workers:
                if one.process.is_alive():
                    one.process.kill()
                    one.process.join()
                one.line.close()
            self.shared.close()

    def _wait_closed(self, deadline: float) -> None:
        """Wait until no worker takes connections any more."""
        taking = [one.line for one in self._workers if one.ready]
        while taking and (ended := wait(taking, max(0.0, deadline - time.monotonic()))):
            for line in ended:
                assert isinstance(line, Connection)
                try:
                    closed = line.recv() == CLOSED
                except (EOFError, OSError):
                    closed = True
                if closed:
                    taking.remove(line)

"""Keeps the workers of the service running: starts them on one socket, replaces the ones that end, and stops them.

Decision 12 says why uvicorn's own workers cannot take its place.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cxr.cpu import available_cores, thread_limits
from cxr.errors import ServiceError
from cxr.files import scratch_folder
from cxr.serving.addresses import address_error
from cxr.serving.rest.settings import METRICS_FOLDER_VARIABLE, ServiceSettings
from cxr.serving.rest.worker import CLOSED, READY, WAKE, StartFailure, StopRequest, run_worker

log = logging.getLogger(__name__)

FIRST_RESTART_SECONDS, LONGEST_RESTART_SECONDS = 1.0, 60.0
"""Time before a worker that ended is replaced. It doubles while replacements end too, up to the second value."""
EXIT_GRACE_SECONDS = 5.0
"""Time that a worker has to exit after its running requests have ended."""


def bind_socket(host: str, port: int) -> socket.socket:
    """Bind an address. Nothing listens there before the first worker is ready.

    Args:
        host: address of this machine.
        port: the port; 0 takes a free one.

    Returns:
        The bound socket.

    Raises:
        ParameterError: if the address is not free or does not exist.
    """
    bound = None
    try:
        first, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = first
        # asyncio sets TCP_NODELAY only if the socket knows its protocol. Without it, a client that keeps its
        # connection waits 40 ms for the end of each response.
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        raise address_error(host, port, error) from error
    return bound


@dataclass
class _WorkerProcess:
    """A running worker.

    Attributes:
        number: number of the worker, from 0; its replacement gets the same.
        process: its process.
        connection: pipe to it.
        ready: whether it answers requests.
    """

    number: int
    process: BaseProcess
    connection: Connection
    ready: bool = False


class Supervisor:
    """Runs the workers of the service until it is interrupted."""

    def __init__(self, settings: ServiceSettings, shared_socket: socket.socket) -> None:
        """Prepare; :meth:`run` starts the workers.

        Args:
            settings: settings of the service.
            shared_socket: the bound socket.
        """
        self._settings, self._shared_socket = settings, shared_socket
        self._workers: list[_WorkerProcess] = []
        self._restart_times: dict[int, float] = {}
        """Number of a missing worker to the monotonic time of its restart, seconds."""
        self._restart_delays: dict[int, float] = {}
        self._service_ready = False
        self._converted_models = Path()

    @property
    def url(self) -> str:
        """Address of the service."""
        host, port = self._shared_socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> None:
        """Run until an exception, such as an interrupt, ends it. Then the workers finish their running requests.

        Raises:
            ServiceError: if a worker cannot start, for a reason that concerns all of them.
        """
        with scratch_folder() as metrics_folder, scratch_folder() as converted_models:
            self._converted_models = converted_models
            # The workers inherit the environment: prometheus_client and TensorFlow read it when they are imported.
            os.environ[METRICS_FOLDER_VARIABLE] = str(metrics_folder)
            for name, value in thread_limits(available_cores() // self._settings.workers).items():
                os.environ.setdefault(name, value)
            from prometheus_client.multiprocess import mark_process_dead

            from cxr.serving.rest.metrics import ServiceMetrics

            metrics = ServiceMetrics()
            notice_seconds = 0.0
            try:
                for number in range(self._settings.workers):
                    self._start(number)
                while True:
                    for process_id in self._handle_events():
                        mark_process_dead(process_id, metrics_folder)  # type: ignore[no-untyped-call]
                        metrics.replaced.inc()
            except SystemExit:  # SIGTERM: whoever routes requests here must first see that the service is not ready
                notice_seconds = self._settings.notice_seconds
                raise
            finally:
                self._stop_workers(notice_seconds)

    def _start(self, number: int) -> None:
        context: Any = multiprocessing.get_context("spawn")
        connection, worker_connection = context.Pipe()
        process = context.Process(
            target=run_worker,
            args=(self._settings, number, self._shared_socket, worker_connection, self._converted_models),
            name=f"cxr-serve-{number}",
        )
        process.start()
        worker_connection.close()
        self._workers.append(_WorkerProcess(number, process, connection))

    def _handle_events(self) -> list[int | None]:
        """Wait for messages of workers, ended workers and due restarts, and handle them.

        Returns:
            Ids of the processes that have ended.
        """
        now = time.monotonic()
        next_restart = min(self._restart_times.values(), default=now + 60)
        workers = {worker.connection: worker for worker in self._workers}
        ended: list[int | None] = []
        for connection in wait(list(workers), max(0.0, next_restart - now)):
            worker = workers[connection]  # type: ignore[index]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                ended.append(self._schedule_restart(worker))
            else:
                self._handle_message(worker, message)
        for number in [number for number, due in self._restart_times.items() if due <= time.monotonic()]:
            del self._restart_times[number]
            self._start(number)
        return ended

    def _handle_message(self, worker: _WorkerProcess, message: object) -> None:
        if message == WAKE:
            self._send_all(WAKE)
        elif message == READY:
            worker.ready = True
            self._restart_delays.pop(worker.number, None)
            if not self._service_ready:
                log.info("answering on %s with %d workers", self.url, self._settings.workers)
            self._service_ready = True
        elif isinstance(message, StartFailure):
            if not self._service_ready:  # what stops the first worker from starting stops all of them
                raise ServiceError(message.text, message.exit_status)
            log.warning("worker %d cannot start: %s", worker.number, message.text)

    def _send_all(self, message: object) -> None:
        for worker in self._workers:
            with suppress(OSError):  # it has ended
                worker.connection.send(message)

    def _schedule_restart(self, worker: _WorkerProcess) -> int | None:
        """Clean up after a worker that has ended, and plan its restart. Returns the id of its process."""
        worker.connection.close()
        worker.process.join(EXIT_GRACE_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        self._workers.remove(worker)
        if not self._service_ready and not worker.ready:
            raise ServiceError(
                f"expected worker {worker.number} to start, received its end with status {worker.process.exitcode}; "
                "see its last messages above, and whether there is memory for the model of each worker",
                1,
            )
        delay = self._restart_delays.get(worker.number, FIRST_RESTART_SECONDS)
        self._restart_delays[worker.number] = min(2 * delay, LONGEST_RESTART_SECONDS)
        self._restart_times[worker.number] = time.monotonic() + delay
        log.warning(
            "worker %d ended with status %s; another takes its place in %g s",
            worker.number, worker.process.exitcode, delay,
        )  # fmt: skip
        return worker.process.pid

    def _stop_workers(self, notice_seconds: float) -> None:
        """Stop all workers. Those that answer requests first finish the running ones."""
        try:
            for worker in self._workers:
                if not worker.ready:
                    worker.process.kill()
            self._send_all(StopRequest(notice_seconds))
            deadline = time.monotonic() + notice_seconds + self._settings.end_seconds + EXIT_GRACE_SECONDS
            self._wait_until_closed(deadline)
            # Nobody accepts further connections now: clients must be refused, and not wait in the queue.
            with suppress(OSError):
                self._shared_socket.shutdown(socket.SHUT_RDWR)
            for worker in self._workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in self._workers:
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()
                worker.connection.close()
            self._shared_socket.close()

    def _wait_until_closed(self, deadline: float) -> None:
        """Wait until no worker accepts connections any more."""
        open_connections = [worker.connection for worker in self._workers if worker.ready]
        while open_connections and (readable := wait(open_connections, max(0.0, deadline - time.monotonic()))):
            for connection in [connection for connection in open_connections if connection in readable]:
                try:
                    closed = connection.recv() == CLOSED
                except (EOFError, OSError):
                    closed = True
                if closed:
                    open_connections.remove(connection)

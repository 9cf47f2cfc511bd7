"""Runs a command whose steps are forks of one process that has imported Keras and MLflow.

``python -m cxr.cli.fork_server dvc repro`` runs DVC, which starts one process per stage. To import these packages takes
such a process five seconds; a fork takes none. The first step that needs them makes this process import them, so
that a run in which nothing changed does not wait for them. A step asks with ``cxr.cli.fork_request``; where nobody
answers it imports them itself.

A process that has spoken to a GPU must not be forked, and on other systems than Linux those with threads of a system
library must not. There the command runs alone, and nothing else changes.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cxr.cli.fork_request import READY, SOCKET_VARIABLE

GPU_DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Files of Linux that are there if a GPU of NVIDIA or AMD may be used."""


PACKAGES = (
    "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store",
    "sklearn.ensemble", "sklearn.metrics", "matplotlib.backends.backend_agg",
)  # fmt: skip
"""What forks have imported beside Keras. Not MLflow's server: it reads the environment while it is imported."""


@dataclass(frozen=True)
class Request:
    """What a fork is asked to do.

    Attributes:
        arguments: what to run.
        folder: where.
        environment: all variables.
    """

    arguments: Sequence[str]
    folder: str
    environment: dict[str, str]

    def take_over(self) -> None:
        """Give this process the folder and the environment of the one that asks."""
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        tempfile.tempdir = None  # chosen anew, by the environment


def fork_on_request(
    listener: socket.socket, command: socket.socket | None = None, prepare: Callable[[], None] | None = None
) -> Request | None:
    """Fork for each request until a command has ended, or else until nobody is connected.

    Args:
        listener: socket on which others connect.
        command: a connection whose other end the command holds.
        prepare: called before the first fork.

    Returns:
        In a fork, what it is asked to do; in the process that was called, None at the end.
    """
    connected, forks = [command] if command else [], set[int]()
    while True:
        for ready in select.select([listener, *connected], [], [])[0]:
            if ready is listener:
                connected.append(listener.accept()[0])
                with suppress(BrokenPipeError):
                    connected[-1].send(READY)
                continue
            message, descriptors, *_ = socket.recv_fds(ready, 1, 5)
            if not message:
                connected.remove(ready)
                ready.close()
                if ready is command or not connected:
                    return None
                continue
            if prepare is not None:
                prepare()
                prepare = None
            forks -= {fork for fork in forks if os.waitpid(fork, os.WNOHANG)[0]}
            fork = os.fork()
            if fork == 0:
                for channel in (listener, *connected):
                    channel.close()
                return _request(descriptors)
            forks.add(fork)
            for descriptor in descriptors:
                os.close(descriptor)


def _request(descriptors: Sequence[int]) -> Request:
    """Fork once more, so that this process can report the exit status of the other one; only that one returns."""
    request, *streams, status = descriptors
    process = os.fork()
    if process == 0:
        os.close(status)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        with os.fdopen(request) as pipe:
            return Request(**json.load(pipe))
    for descriptor in (request, *streams):
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_kill_when_left, args=[process, status], daemon=True).start()
    with suppress(BrokenPipeError), os.fdopen(status, "w") as pipe:
        print(process, file=pipe, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=pipe, flush=True)
    os._exit(0)


def _kill_when_left(process: int, status: int) -> None:
    """Kill a fork when the process that asked for it is gone: then nobody reads its exit status."""
    closed = select.poll()
    closed.register(status, 0)  # reports only that the other end was closed
    closed.poll()
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def may_fork() -> bool:
    """Whether this process may import Keras and be forked: on Linux, without a GPU, with TensorFlow as the backend."""
    from cxr.models.backend import backend_name

    has_gpu = any(map(os.path.exists, GPU_DEVICES))
    return sys.platform == "linux" and not has_gpu and backend_name() == "tensorflow"


def import_packages() -> None:
    """Import what takes steps long, and hide it from garbage collection."""
    from sqlalchemy.orm import configure_mappers

    from cxr.fast_import import import_without_garbage_collection
    from cxr.models.backend import load_keras
    from cxr.tracking.store import load_mlflow

    load_keras()
    load_mlflow()
    for name in PACKAGES:
        import_without_garbage_collection(name)
    configure_mappers()  # of the stores; else at the first query of each fork
    gc.freeze()


def run_with_forks(command: Sequence[str]) -> NoReturn:
    """Run a command, and fork for the steps below it until it has ended. This process ends with its exit status.

    Args:
        command: the command and its arguments.
    """
    folder = Path(tempfile.mkdtemp(prefix="cxr-forks-"))
    address = folder / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        alive, of_command = socket.socketpair()
        process = subprocess.Popen(
            command, env=os.environ | {SOCKET_VARIABLE: str(address)}, pass_fds=[of_command.fileno()]
        )
        of_command.close()
        # Ctrl-C ends the command, and this process with it.
        at_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
        request = fork_on_request(listener, alive, import_packages)
    if request is None:
        status = process.wait()
        address.unlink()
        folder.rmdir()
        os._exit(status if status >= 0 else 128 - status)
    signal.signal(signal.SIGINT, at_ctrl_c)
    _run_step(request)


def _run_step(request: Request) -> NoReturn:
    from cxr.cli.main import run_program

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    request.take_over()
    del os.environ[SOCKET_VARIABLE]  # a fork is asked for no further one
    sys.argv = ["cxr", *request.arguments]
    run_program()


def main() -> None:
    """Run the command of the process: with forks where they may be, else in its place."""
    command = sys.argv[1:]
    if may_fork():
        run_with_forks(command)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()

"""Processes of Python that have the large packages already: forks of one that has imported them and done nothing else.

To import Keras and MLflow takes a process five seconds of CPU; a fork takes none. What a process imports, and how its
command starts, are seen in a process of its own alone.

One process forks for all workers of a test run. It is started as ``python -m support.forked_processes PATH``, with the
socket on which it is asked, and ends when no worker is connected any more.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from filelock import FileLock

from cxr.cli import fork_request
from cxr.cli.fork_request import connect, request_fork
from cxr.cli.fork_server import fork_on_request, import_packages
from support.figures import blank_figures
from support.shared_folders import folder_of_run
from support.support_path import support_path

COMMAND = "import sys; from cxr.cli.main import main; sys.exit(main(sys.argv[1:]))"
"""Code that runs ``cxr`` with the arguments."""
CLIENT = """
import sys
from pathlib import Path
folder, address, *words = sys.argv[1:]
sys.path.insert(0, folder)
from fork_request import run_in_fork
sys.exit(run_in_fork(Path(address), words))
"""
"""Code of a process whose work a fork does. It imports nothing else, so that it starts at once."""
START_SECONDS = 180
"""Time limit for the imports of the process that forks, on a busy machine."""


class ForkedProcess:
    """A process that runs code, as ``subprocess.Popen([sys.executable, "-c", code, ...])`` with three pipes."""

    def __init__(
        self, code: str, *arguments: str, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        """Start in the folder of this process.

        Args:
            code: Python.
            arguments: ``sys.argv`` after the first.
            environment: all its variables; None takes those of this process.
            log: file to which its output and its errors are added; None puts them into the pipes.
        """
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = _output(log)
        from_stderr, stderr = _output(log)
        variables = os.environ if environment is None else environment
        self._status = request_fork(_server(), (stdin, stdout, stderr), (code, *arguments), variables)
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
        self.stdin, self.stdout = os.fdopen(to_stdin, "w"), os.fdopen(from_stdout)
        self.stderr = os.fdopen(from_stderr)
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end, at most some seconds."""
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            self.send_signal(signal.SIGKILL)
            raise subprocess.TimeoutExpired("a forked process", timeout)
        status = self.poll()
        assert status is not None
        return status

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Close its input, and give its output and its errors when it has ended."""
        with self.stdin, self.stdout, self.stderr, ThreadPoolExecutor(2) as pool:
            self.stdin.close()
            output, errors = pool.submit(self.stdout.read), pool.submit(self.stderr.read)
            self.wait(timeout)
            return output.result(), errors.result()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since, and its status is on the way
                os.kill(self.pid, number)


def run_forked(
    code: str, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run code in a fork until it ends, as ``subprocess.run`` with captured output."""
    process = ForkedProcess(code, *arguments, environment=environment)
    output, errors = process.communicate(timeout)
    return subprocess.CompletedProcess([code, *arguments], process.wait(0), output, errors)


def _output(log: Path | None) -> tuple[int, int]:
    """Both ends of a pipe; with a log, what is written goes there, and the pipe has ended."""
    reading, writing = os.pipe()
    if log is not None:
        os.close(writing)
        writing = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    return reading, writing


def write_command(path: Path, code: str = COMMAND) -> None:
    """Write a program that runs code in a fork, by default ``cxr``: for what starts it by its name, as DVC does."""
    _server()  # has begun, and stays while this worker does
    client = [sys.executable, "-S", "-E", "-c", CLIENT, str(Path(fork_request.__file__).parent), str(_address()), code]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
    path.chmod(0o755)


@cache
def _server() -> socket.socket:
    """Connect to the process that forks for this test run; the first worker that needs it starts it."""
    address = _address()
    with FileLock(address.with_suffix(".lock")):
        try:
            return connect(address)
        except OSError:  # not started yet, or ended with the last worker that was connected
            return _start(address)


def _address() -> Path:
    return folder_of_run() / "forks.socket"


def _start(address: Path) -> socket.socket:
    address.unlink(missing_ok=True)
    command = [sys.executable, "-m", "support.forked_processes", str(address)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ | support_path(),
    )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return connect(address)
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the process that forks did not start: exit status {process.poll()}")


def _main() -> None:
    address = Path(sys.argv[1])
    with socket.socket(socket.AF_UNIX) as listener:
        import_packages()
        listener.bind(str(address))
        listener.listen()
        request = fork_on_request(listener)
    if request is None:
        return
    request.take_over()
    code, *arguments = request.arguments
    sys.argv = ["-c", *arguments]
    with blank_figures():
        exec(code, {"__name__": "__main__"})  # noqa: S102


if __name__ == "__main__":
    _main()

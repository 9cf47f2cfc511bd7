"""Asking a process that has imported the large packages for a fork: the part that imports next to nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

SOCKET_VARIABLE = "CXR_FORKS"
"""Environment variable with the socket of the process that forks, for the commands below it."""

FORWARDED = (signal.SIGTERM, signal.SIGHUP)
"""Signals that a process gives on to the fork that does its work."""

READY = b"."
"""What the process that forks sends to each that connects: one that waits while it ends gets nothing."""


def connect(address: Path) -> socket.socket:
    """Connect to the process that forks.

    Args:
        address: its socket.

    Returns:
        The connection.

    Raises:
        OSError: if nobody answers there.
    """
    channel = socket.socket(socket.AF_UNIX)
    try:
        channel.connect(str(address))
        if channel.recv(1) != READY:
            raise ConnectionResetError(f"{address}: the process that forks has ended")
    except OSError:
        channel.close()
        raise
    return channel


def request_fork(
    channel: socket.socket, streams: tuple[int, int, int], arguments: Sequence[str], environment: Mapping[str, str]
) -> TextIO:
    """Ask for a fork in the folder of this process. When the answer is closed, the fork is killed.

    Args:
        channel: connection to the process that forks.
        streams: descriptors of its input, its output and its errors.
        arguments: what it is asked to run.
        environment: all its variables.

    Returns:
        What it says: its process id, and, when it has ended, its exit status (negative for a signal), in a line each.
    """
    request, ask = os.pipe()
    from_status, status = os.pipe()
    socket.send_fds(channel, [b"."], [request, *streams, status])
    os.close(request)
    os.close(status)
    with os.fdopen(ask, "w") as pipe:
        variables = dict(environment)
        json.dump({"arguments": list(arguments), "folder": str(Path.cwd()), "environment": variables}, pipe)
    return os.fdopen(from_status)


def run_in_fork(address: Path, arguments: Sequence[str]) -> int | None:
    """Run a command in a fork with the input, the outputs, the folder and the environment of this process.

    The fork gets a SIGTERM or SIGHUP that this process gets. Ctrl-C reaches both, and the fork says how it ended. If
    this process is killed, the fork is too; if the fork is killed by a signal, so is this process.

    Args:
        address: socket of the process that forks.
        arguments: the command.

    Returns:
        Exit status; None if nobody forks there, and nothing was run.
    """
    try:
        channel = connect(address)
    except OSError:
        return None
    at_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    with channel, request_fork(channel, (0, 1, 2), arguments, os.environ) as status:
        first_line = status.readline()
        if not first_line:  # it has ended meanwhile, for example because it cannot import the packages
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            signal.signal(signal.SIGINT, at_ctrl_c)
            return None
        process = int(first_line)
        for number in FORWARDED:
            signal.signal(number, lambda received, _: os.kill(process, received))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        result = int(status.readline())
    if result < 0:
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-result, signal.SIG_DFL)
        os.kill(os.getpid(), -result)
    return result

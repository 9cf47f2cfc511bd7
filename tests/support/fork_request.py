"""Asking for a fork, and a command that is one: the part of ``forked_processes`` that imports next to nothing.

Run as ``python -S -E fork_request.py SOCKET CODE [ARGUMENT ...]``: a process whose work a fork does, with its
folder, its environment, its input and its outputs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

READY = b"."
"""What the process that forks sends to each that connects: one that waits while it ends gets nothing."""


def connect(address: Path) -> socket.socket:
    """Connect to the process that forks.

    Raises:
        OSError: nobody answers there.
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
    channel: socket.socket,
    streams: tuple[int, int, int],
    code: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
) -> TextIO:
    """Ask for a fork in the folder of this process.

    Args:
        channel: connection to the process that forks.
        streams: descriptors of its input, its output and its errors.
        code: Python.
        arguments: ``sys.argv`` after the first.
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
        json.dump({"code": code, "arguments": arguments, "folder": str(Path.cwd()), "environment": variables}, pipe)
    return os.fdopen(from_status)


def _main() -> None:
    address, code, *arguments = sys.argv[1:]
    with connect(Path(address)) as channel, request_fork(channel, (0, 1, 2), code, arguments, os.environ) as status:
        process = int(status.readline())
        signal.signal(signal.SIGTERM, lambda number, _: os.kill(process, number))
        result = int(status.readline())
    if result < 0:
        signal.signal(-result, signal.SIG_DFL)
        os.kill(os.getpid(), -result)
    sys.exit(result)


if __name__ == "__main__":
    _main()

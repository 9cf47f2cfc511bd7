"""Decoding files of strangers in processes that can do nothing else, and that are replaced when they do not answer."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import numpy as np

import cxr
from cxr.errors import ImageError, InstallationError
from cxr.images.decoding import MAX_PIXELS, PROBLEMS, Picture
from cxr.images.sandbox_process import ANSWER, PICTURE, READY, REQUEST

MEMORY_BYTES = 1 << 30
MAX_BYTES = 64 * 1024 * 1024
START_SECONDS = 60.0
"""How long a process may take to load the decoders; on an idle machine it is one second."""

_LONGEST_TEXT = 4096
_PIPE_BYTES = 1 << 20
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Variables that libraries are found by; nothing else of the environment is handed on."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from cxr.images.sandbox_process import main; main()"
)


class LimitedReader:
    """Decodes pictures in other processes, bounded in size, pixels, time and memory. Threads may share one.

    A process has no environment, cannot open a file, write one, start a process or use the network where the system
    can forbid it (:func:`cxr.images.sandbox_rights.confine`). One that takes too long is killed. One that ends, because
    of a file or killed from outside, is replaced, and the file is tried once more. A reader belongs to the process
    that made it: after a fork, make another.
    """

    def __init__(
        self,
        *,
        processes: int = 1,
        seconds: float = 10.0,
        memory_bytes: int = MEMORY_BYTES,
        max_bytes: int = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Start the processes, without waiting for them.

        Args:
            processes: files that can be decoded at the same time.
            seconds: time for one file.
            memory_bytes: memory of a process beyond what it takes before its first file (not on macOS).
            max_bytes: largest file; larger ones are refused before they are sent.
            max_pixels: largest number of pixels, decided before a pixel is decoded.
        """
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._closed = False
        # The last one used is the first one taken: its memory is still at hand.
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(_Process(memory_bytes))

    def __enter__(self) -> LimitedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, data: bytes) -> Picture:
        """Decode a file as :func:`cxr.images.decoding.decode_picture` does.

        Waits while all processes are at work.

        Args:
            data: the whole content of a JPEG, PNG or DICOM file.

        Returns:
            The picture.

        Raises:
            ImageError: as :func:`cxr.images.decoding.decode_picture`; ``too_large`` also for bytes and memory,
                ``too_slow``, and ``corrupt`` for a file on which the process ended twice.
            InstallationError: if no process can be started.
            ValueError: if the reader is closed.
        """
        if len(data) > self._max_bytes:
            raise ImageError("too_large", f"expected at most {self._max_bytes} bytes, received bytes={len(data)}")
        if self._closed:
            raise ValueError("expected an open reader, received one that was closed; make another")
        process = self._idle.get()
        try:
            for _ in range(2):
                try:
                    return process.decode(data, self._max_pixels, self._seconds)
                except ImageError:
                    raise
                except BaseException as error:
                    # Its answer, if it still gives one, would be taken for that to the next file.
                    process = self._another(process)
                    if isinstance(error, TimeoutError):
                        message = f"expected to be read within {self._seconds:g} s, stopped after that"
                        raise ImageError("too_slow", message) from None
                    if not isinstance(error, _EndedError):
                        raise
            raise ImageError("corrupt", "the process that decodes it ended twice on this file")
        finally:
            self._idle.put(process)
            if self._closed:
                self._end_idle()

    def close(self) -> None:
        """End the processes; those at work end after their file. Calling it again does nothing."""
        self._closed = True
        self._end_idle()

    def _another(self, process: _Process) -> _Process:
        process.stop()
        # Its pipes are closed last: until then their numbers belong to nobody else.
        another = _Process(self._memory_bytes)
        process.end()
        return another

    def _end_idle(self) -> None:
        while True:
            try:
                self._idle.get_nowait().end()
            except queue.Empty:
                return


class _EndedError(Exception):
    """The process ended, or wrote what is no answer."""


class _Process:
    """One process and its pipes."""

    def __init__(self, memory_bytes: int) -> None:
        root = str(Path(cxr.__file__).parents[1])
        places = json.dumps([root, *(place for place in sys.path if Path(place).is_absolute() and place != root)])
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        # Threads of linear algebra would each reserve memory, and could not be started later.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", _START, str(memory_bytes), places],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,  # not ended by Ctrl-C in a terminal before its parent is
        )
        pipes = (self._child.stdin, self._child.stdout)
        self._requests, self._answers = (pipe.fileno() for pipe in pipes if pipe is not None)
        for descriptor in (self._requests, self._answers):
            os.set_blocking(descriptor, False)
            if sys.platform == "linux":
                with contextlib.suppress(OSError):  # only faster: fewer turns between the two
                    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._ready = False

    def decode(self, data: bytes, max_pixels: int, seconds: float) -> Picture:
        """Have a file decoded; TimeoutError and _EndedError say that the process is of no more use."""
        self._wait_until_ready()
        deadline = time.monotonic() + seconds
        try:
            self._send(memoryview(REQUEST.pack(len(data), max_pixels, seconds)), deadline)
            self._send(memoryview(data), deadline)
            kind, first, second, coloured = ANSWER.unpack(self._receive(ANSWER.size, deadline))
            if kind == PICTURE and 0 < first * second <= max_pixels and 0 <= coloured <= 1:
                grey = np.frombuffer(self._receive(first * second, deadline), dtype=np.uint8)
                return Picture(grey.reshape(first, second), coloured)
            if kind == PICTURE or first > _LONGEST_TEXT:
                raise _EndedError
            text = self._receive(first, deadline).decode("utf-8", "replace")
        except (BrokenPipeError, ConnectionResetError):
            raise _EndedError from None
        problem, _, detail = text.partition("\n")
        if problem not in PROBLEMS:
            raise _EndedError
        raise ImageError(problem, detail)

    def stop(self) -> None:
        """Kill the process, whatever it is doing."""
        self._child.kill()
        self._child.wait()

    def end(self) -> None:
        """Kill the process and close its pipes."""
        self.stop()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        try:
            self._ready = self._receive(len(READY), time.monotonic() + START_SECONDS) == READY
        except TimeoutError:
            raise InstallationError(
                f"expected a process that decodes pictures to start within {START_SECONDS:g} s; is the machine loaded?"
            ) from None
        except _EndedError:
            if self._child.wait() < 0:  # killed by somebody while it started
                raise
            raise InstallationError(
                f"expected a process that decodes pictures, received exit_status={self._child.returncode}; "
                "what it wrote to stderr says what is missing"
            ) from None

    def _send(self, rest: memoryview, deadline: float) -> None:
        while rest:
            _wait(self._requests, select.POLLOUT, deadline)
            rest = rest[os.write(self._requests, rest) :]

    def _receive(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        place, view = 0, memoryview(data)
        while place < size:
            _wait(self._answers, select.POLLIN, deadline)
            count = os.readv(self._answers, [view[place:]])
            if not count:
                raise _EndedError
            place += count
        return data


def _wait(descriptor: int, event: int, deadline: float) -> None:
    """Wait until a pipe is ready or was closed; TimeoutError at the deadline."""
    waiting = select.poll()
    waiting.register(descriptor, event)
    if not waiting.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
        raise TimeoutError

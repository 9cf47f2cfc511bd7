"""Decodes files of strangers in sandboxed processes that can do nothing else and are replaced if they hang."""

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
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

import cxr
from cxr.errors import ImageError, InstallationError
from cxr.images.dicom.source_image import SourceImage
from cxr.images.problems import PROBLEMS
from cxr.images.reading_options import ReadingOptions
from cxr.images.sandbox_process import READY, REQUEST, RESPONSE
from cxr.images.strict_decoding import DecodedImage

MEMORY_BYTES = 1 << 30
START_SECONDS = 60.0
"""Time limit for loading the decoders; on an idle machine it takes one second."""

_MAX_TEXT_BYTES = 4096
_PIPE_BYTES = 1 << 20
_PASSED_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Environment variables with which libraries are found; a process gets no others."""
_START_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from cxr.images.sandbox_process import main; main()"
)


_ResponseT = TypeVar("_ResponseT")


class SandboxedDecoder:
    """Decodes images in sandboxed processes with limits on file size, pixels, time and memory. It is thread-safe.

    Where the system can forbid it (:func:`cxr.images.sandbox_rights.drop_rights`), a process cannot open or write a
    file, start a process or use the network, and it has no environment. A process that takes too long is killed. A
    process that ends, because of a file or because it was killed from outside, is replaced, and the file is tried once
    more. A decoder belongs to the process that created it: after a fork, create another.
    """

    def __init__(
        self,
        *,
        processes: int = 1,
        seconds: float,
        memory_bytes: int = MEMORY_BYTES,
        max_bytes: int,
        options: ReadingOptions,
    ) -> None:
        """Start the processes without waiting for them.

        Args:
            processes: number of files that can be decoded at the same time.
            seconds: time limit for one file.
            memory_bytes: memory of a process beyond what it uses before its first file (not on macOS).
            max_bytes: largest file; larger ones are refused before they are sent.
            options: what is accepted.
        """
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._max_bytes = max_bytes
        self._options = options
        self._closed = False
        # The process that was used last is taken first, because its memory is still in the caches.
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(_Process(memory_bytes, options))

    def __enter__(self) -> SandboxedDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def decode(self, data: bytes) -> DecodedImage:
        """Decode a file as :func:`cxr.images.decoding.decode_image` does.

        Waits while all processes are busy.

        Args:
            data: the whole content of a JPEG, PNG or DICOM file.

        Returns:
            The decoded image.

        Raises:
            ImageError: as :func:`cxr.images.decoding.decode_image`; ``too_large`` also for the file's size and for
                memory, ``too_slow``, and ``corrupt`` for a file on which the process ended twice.
            InstallationError: if no process can be started.
            ValueError: if the decoder is closed.
        """
        return self._run(data, lambda process: process.decode(data, self._seconds))

    def describe(self, data: bytes) -> SourceImage:
        """Read whose image a DICOM file holds, as :func:`cxr.images.dicom.source_image.describe_source_image` does.

        Args:
            data: the whole content of the file.

        Returns:
            The description.

        Raises:
            ImageError: as that function; ``too_large``, ``too_slow`` and ``corrupt`` as :meth:`decode`.
            InstallationError: if no process can be started.
            ValueError: if the decoder is closed.
        """
        return self._run(data, lambda process: process.describe(data, self._seconds))

    def _run(self, data: bytes, request: Callable[[_Process], _ResponseT]) -> _ResponseT:
        if len(data) > self._max_bytes:
            raise ImageError(
                "too_large",
                f"expected at most {self._max_bytes} bytes, received bytes={len(data)}; send a smaller image",
            )
        if self._closed:
            raise ValueError("expected an open decoder, received one that was closed; create another")
        process = self._idle.get()
        try:
            for _ in range(2):
                try:
                    return request(process)
                except ImageError:
                    raise
                except BaseException as error:
                    # A late response of this process would be taken for the response to the next file.
                    process = self._replace(process)
                    if isinstance(error, TimeoutError):
                        detail = f"expected to be decoded within {self._seconds:g} s, stopped after that"
                        raise ImageError("too_slow", detail) from None
                    if not isinstance(error, _EndedError):
                        raise
            raise ImageError("corrupt", "the process that decodes it ended twice on this file; get the file again")
        finally:
            self._idle.put(process)
            if self._closed:
                self._end_idle()

    def close(self) -> None:
        """End the processes; busy ones end after their file. A second call does nothing."""
        self._closed = True
        self._end_idle()

    def _replace(self, process: _Process) -> _Process:
        process.stop()
        # The old pipes are closed last, so that the new process cannot get their descriptor numbers.
        replacement = _Process(self._memory_bytes, self._options)
        process.end()
        return replacement

    def _end_idle(self) -> None:
        while True:
            try:
                self._idle.get_nowait().end()
            except queue.Empty:
                return


class _EndedError(Exception):
    """The process ended or wrote an invalid response."""


class _Process:
    """One sandboxed process and its pipes."""

    def __init__(self, memory_bytes: int, options: ReadingOptions) -> None:
        self._max_pixels = options.max_pixels
        root = str(Path(cxr.__file__).parents[1])
        import_paths = [root, *(path for path in sys.path if Path(path).is_absolute() and path != root)]
        environment = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
        # Each thread of linear algebra would reserve memory, and threads cannot be started later.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-B", "-c", _START_CODE),
                *(str(memory_bytes), options.to_text(), json.dumps(import_paths)),
            ],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,  # so that Ctrl-C in a terminal does not end it before its parent
        )
        pipes = (self._child.stdin, self._child.stdout)
        self._requests, self._responses = (pipe.fileno() for pipe in pipes if pipe is not None)
        for descriptor in (self._requests, self._responses):
            os.set_blocking(descriptor, False)
            if sys.platform == "linux":
                with contextlib.suppress(OSError):  # a larger pipe is only faster: fewer switches between the two
                    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._ready = False

    @property
    def process_id(self) -> int:
        return self._child.pid

    def decode(self, data: bytes, seconds: float) -> DecodedImage:
        """Decode a file; after TimeoutError or _EndedError the process cannot be used any more."""
        grey, coloured_share, text = self._request(data, seconds, describes=False)
        values = _read_json(text)
        if not isinstance(values, list):
            raise _EndedError
        if grey.size:
            return DecodedImage(grey, coloured_share, tuple(_read_problem(entry) for entry in values))
        raise ImageError(*_read_problem(values))

    def describe(self, data: bytes, seconds: float) -> SourceImage:
        """Describe a DICOM file; errors as in :meth:`decode`."""
        values = _read_json(self._request(data, seconds, describes=True)[2])
        if not isinstance(values, dict):
            raise ImageError(*_read_problem(values))
        try:
            return SourceImage.from_values(values)
        except ValueError:
            raise _EndedError from None

    def _request(self, data: bytes, seconds: float, *, describes: bool) -> tuple[NDArray[np.uint8], float, bytearray]:
        """Send a file; return grey levels, the share of coloured pixels, and JSON."""
        self._wait_until_ready()
        deadline = time.monotonic() + seconds
        try:
            self._send(memoryview(REQUEST.pack(len(data), seconds, describes)), deadline)
            self._send(memoryview(data), deadline)
            height, width, coloured_share, text_bytes = RESPONSE.unpack(self._receive(RESPONSE.size, deadline))
            if height * width > self._max_pixels or not 0 <= coloured_share <= 1 or text_bytes > _MAX_TEXT_BYTES:
                raise _EndedError
            grey = np.frombuffer(self._receive(height * width, deadline), dtype=np.uint8).reshape(height, width)
            return grey, coloured_share, self._receive(text_bytes, deadline)
        except (BrokenPipeError, ConnectionResetError):
            raise _EndedError from None

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
                f"expected a process that decodes images to start within {START_SECONDS:g} s; is the machine loaded?"
            ) from None
        except _EndedError:
            if self._child.wait() < 0:  # it was killed while it started
                raise
            raise InstallationError(
                f"expected a process that decodes images, received exit_status={self._child.returncode}; "
                "its output on stderr says what is missing"
            ) from None

    def _send(self, data: memoryview, deadline: float) -> None:
        while data:
            _wait_for_pipe(self._requests, select.POLLOUT, deadline)
            data = data[os.write(self._requests, data) :]

    def _receive(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        received, view = 0, memoryview(data)
        while received < size:
            _wait_for_pipe(self._responses, select.POLLIN, deadline)
            count = os.readv(self._responses, [view[received:]])
            if not count:
                raise _EndedError
            received += count
        return data


def _read_json(text: bytearray) -> object:
    """Read JSON of a process that may have been taken over by a file."""
    try:
        values: object = json.loads(text)
    except (ValueError, RecursionError):
        raise _EndedError from None
    return values


def _read_problem(values: object) -> tuple[str, str]:
    match values:
        case [str(problem), str(detail)] if problem in PROBLEMS:
            return problem, detail
    raise _EndedError


def _wait_for_pipe(descriptor: int, event: int, deadline: float) -> None:
    """Wait until a pipe is ready or was closed; raise TimeoutError at the deadline."""
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
        raise TimeoutError

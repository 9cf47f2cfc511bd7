"""A worker: a process of its own with its own model, which answers on the socket that all workers share."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from cxr.errors import CxrError
from cxr.serving.rest.cpu import available_cores
from cxr.serving.rest.settings import Settings

if TYPE_CHECKING:
    from cxr.serving.alias_watcher import Change, Watcher
    from cxr.serving.rest.inference import Standing

log = logging.getLogger(__name__)

WAKE, READY, CLOSED = "wake", "ready", "closed"
"""Words between a worker and its supervisor."""


@dataclass(frozen=True)
class End:
    """A worker is to end: readiness goes at once, and after some seconds no more requests are taken."""

    notice_seconds: float


@dataclass(frozen=True)
class Failed:
    """A worker could not start: what it says, and the exit status of that error."""

    text: str
    exit_status: int


def work(settings: Settings, number: int, shared: socket.socket, line: Connection) -> None:
    """Load the model, then answer until told to end, or until the supervisor is gone.

    Args:
        settings: what the service was told.
        number: number of this worker, from 0; the first one keeps the promotion log.
        shared: bound socket.
        line: to the supervisor.
    """
    # Signals that a terminal or a container sends to the whole group are the supervisor's; so are our children's.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format=f"worker {number}: %(message)s")
    logging.getLogger("cxr").setLevel(logging.INFO)
    try:
        with ExitStack() as stack:
            _Worker(settings, number, shared, line).answer(stack)
    except CxrError as error:
        line.send(Failed(str(error), error.exit_status))
    # All is tidy, and the interpreter would take seconds to take TensorFlow down piece by piece.
    logging.shutdown()
    os._exit(0)


class _Worker:
    def __init__(self, settings: Settings, number: int, shared: socket.socket, line: Connection) -> None:
        self._settings, self._number, self._shared, self._line = settings, number, shared, line
        self._sending = threading.Lock()

    def answer(self, stack: ExitStack) -> None:
        from cxr.images.sandbox import LimitedReader
        from cxr.serving.rest.application import application
        from cxr.serving.rest.inference import Desk
        from cxr.serving.rest.metrics import Measurements
        from cxr.serving.rest.middleware import Standby
        from cxr.serving.rest.server import HttpServer
        from cxr.serving.rest.webhook import News
        from cxr.tracking.webhook_signature import SignatureCheck, secret_of

        settings, limits = self._settings, self._settings.limits
        secret = secret_of(settings.secret_variable)
        standing, watcher = self._stand(stack)
        at_once = max(2, available_cores() // settings.workers)
        reader = stack.enter_context(
            LimitedReader(
                processes=at_once, seconds=limits.read_seconds, max_bytes=limits.bytes, max_pixels=limits.pixels
            )
        )
        kept = None
        if settings.predictions is not None:
            from cxr.serving.prediction_log import PredictionLog

            kept = PredictionLog(settings.predictions, pixels=settings.pixels)
        counted, standby = Measurements(), Standby()
        news = News(standing.registered_name, self._pass_on, SignatureCheck(secret) if secret else None)
        threads = stack.enter_context(ThreadPoolExecutor(at_once, thread_name_prefix="answers"))
        desk = Desk(standing, reader, limits, counted, kept)
        server = HttpServer(
            application(desk, limits, counted, news, threads, standby),
            self._shared,
            settings.end_seconds,
            on_open=lambda: self._tell(READY),
            on_closed=lambda: self._tell(CLOSED),
        )

        def leave(seconds: float) -> None:
            standby.leaving = True
            time.sleep(seconds)
            server.end()

        listening = threading.Thread(target=self._listen, args=(watcher, leave), name="supervisor", daemon=True)
        noting = _Every(1.0, lambda: counted.state(standing.current, standing.problem))
        stack.callback(noting.stop)
        noting.start()
        listening.start()
        server.run_until_told()

    def _stand(self, stack: ExitStack) -> tuple[Standing, Watcher | None]:
        from cxr.models.backend import load_keras
        from cxr.serving.alias_watcher import Watcher
        from cxr.serving.model_provider import ServedAlias, choose_version
        from cxr.serving.model_source import from_folder
        from cxr.serving.rest.inference import StandingFolder
        from cxr.tracking.registry_reader import ask_briefly

        settings = self._settings
        standing: Standing
        # What isn't there is told before TensorFlow is loaded, which takes seconds.
        if settings.model is not None:
            choice = from_folder(settings.model, settings.evaluation, settings.reference)
            load_keras()
            standing, watcher = StandingFolder(choice.load()), None
        else:
            ask_briefly()
            wanted = (settings.tracking_uri, settings.registered_name, settings.alias)
            choose_version(*wanted, settings.fallback)
            load_keras()
            alias = ServedAlias(*wanted, fallback=settings.fallback)
            first = self._number == 0
            calls = [_announce, *([self._note] if settings.keep_log else [])] if first else []
            standing, watcher = alias, Watcher(alias, settings.seconds, calls)
            watcher.start()
            stack.callback(watcher.stop)
        if standing.current.banner and self._number == 0:
            log.warning("%s", standing.current.banner)
        return standing, watcher

    def _listen(self, watcher: Watcher | None, leave: Callable[[float], None]) -> None:
        """Do what the supervisor says; if it is gone, so are we."""
        try:
            while not isinstance(word := self._line.recv(), End):
                if word == WAKE and watcher is not None:
                    watcher.wake()
        except (EOFError, OSError):
            word = End(0.0)
        leave(word.notice_seconds)

    def _pass_on(self) -> None:
        self._tell(WAKE)

    def _tell(self, word: str) -> None:
        with self._sending, suppress(OSError):  # the supervisor is gone
            self._line.send(word)

    def _note(self, _: Change) -> None:
        from cxr.tracking.registry import observe

        observe(self._settings.tracking_uri, self._settings.registered_name)


def _announce(change: Change) -> None:
    log.info("%s", change)


class _Every(threading.Thread):
    """Calls again and again."""

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._seconds, self._call, self._ended = seconds, call, threading.Event()

    def run(self) -> None:
        self._call()
        while not self._ended.wait(self._seconds):
            self._call()

    def stop(self) -> None:
        self._ended.set()

"""A worker: a process with its own model that answers on the shared socket, and obeys its supervisor."""

from __future__ import annotations

import logging
import multiprocessing
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
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.cpu import available_cores
from cxr.errors import CxrError
from cxr.serving.rest.settings import ServiceSettings
from cxr.tracking.store import Store

if TYPE_CHECKING:
    from cxr.serving.alias_watcher import AliasChange, AliasWatcher
    from cxr.serving.current_models import CurrentModels
    from cxr.serving.model_provider import ModelProvider
    from cxr.serving.model_source import LoadPredictor
    from cxr.serving.prediction_log import PredictionLog
    from cxr.serving.rest.metrics import ServiceMetrics
    from cxr.serving.rest.shadow import ShadowPredictor

WAKE, READY, CLOSED = "wake", "ready", "closed"
"""Messages between worker and supervisor: poll the registry (both ways), accepts requests, accepts no more requests."""


@dataclass(frozen=True)
class StopRequest:
    """The supervisor asks a worker to stop.

    Attributes:
        notice_seconds: time in which the worker still answers, but says that it is not ready.
    """

    notice_seconds: float


@dataclass(frozen=True)
class StartFailure:
    """A worker could not start.

    Attributes:
        text: the error message.
        exit_status: exit status of that error.
    """

    text: str
    exit_status: int


def run_worker(
    settings: ServiceSettings,
    number: int,
    shared_socket: socket.socket,
    connection: Connection,
    converted_models: Path,
) -> None:
    """Load the model, then answer until the supervisor asks to stop or is gone.

    Args:
        settings: settings of the service.
        number: number of this worker, from 0. Worker 0 writes the promotion log.
        shared_socket: the bound socket.
        connection: pipe to the supervisor.
        converted_models: folder of the files that ONNX Runtime reads; all workers share it.
    """
    # A terminal or a container sends signals to the whole process group. They are for the supervisor alone.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format=f"worker {number}: %(message)s")
    logging.getLogger("cxr").setLevel(logging.INFO)
    loaded = threading.Event()
    threading.Thread(target=_end_with_supervisor, args=(loaded,), name="start", daemon=True).start()
    try:
        with ExitStack() as stack:
            _Worker(settings, number, shared_socket, connection, converted_models, loaded).run(stack)
    except CxrError as error:
        connection.send(StartFailure(str(error), error.exit_status))
    # Everything is closed by now. A normal exit would take seconds more, because it unloads TensorFlow.
    logging.shutdown()
    os._exit(0)


def _end_with_supervisor(loaded: threading.Event) -> None:
    """End this process if the supervisor is killed while the model is loaded, which takes seconds.

    The worker holds the socket, and until it ends no other service can have the address.
    """
    if (supervisor := multiprocessing.parent_process()) is not None:
        supervisor.join()
    if not loaded.is_set():  # afterwards it obeys the supervisor: it finishes its requests first
        os._exit(1)


def _predictor_loader(settings: ServiceSettings, converted_models: Path) -> LoadPredictor:
    """What loads classifiers for the runtime of the service."""
    if settings.runtime == "keras":
        from cxr.serving.model_source import load_with_keras

        return load_with_keras
    from cxr.serving.onnx_loading import onnx_loader

    return onnx_loader(converted_models, max(1, available_cores() // settings.workers))


class _Worker:
    def __init__(
        self,
        settings: ServiceSettings,
        number: int,
        shared_socket: socket.socket,
        connection: Connection,
        converted_models: Path,
        loaded: threading.Event,
    ) -> None:
        self._settings, self._number = settings, number
        self._shared_socket, self._connection = shared_socket, connection
        self._loaded = loaded
        self._load_predictor = _predictor_loader(settings, converted_models)
        self._store = Store(settings.tracking_uri, trusted_keys=settings.trusted_keys)
        self._send_lock = threading.Lock()

    def run(self, stack: ExitStack) -> None:
        from cxr.images.sandbox import SandboxedDecoder
        from cxr.serving.prediction_log import PredictionLog
        from cxr.serving.rest.application import build_application
        from cxr.serving.rest.inference import InferenceService
        from cxr.serving.rest.metrics import ServiceMetrics
        from cxr.serving.rest.middleware import Readiness
        from cxr.serving.rest.server import HttpServer
        from cxr.serving.rest.webhook import WebhookReceiver
        from cxr.tracking.webhook_signature import SignatureCheck, read_secret

        settings, limits = self._settings, self._settings.limits
        secret = read_secret(settings.secret_variable)
        models = self._open_models(stack)
        provider, detectors, watchers = models.classifier, models.detector, list(models.watchers)
        parallel_requests = max(2, available_cores() // settings.workers)
        decoder = stack.enter_context(
            SandboxedDecoder(
                processes=parallel_requests,
                seconds=limits.read_seconds,
                max_bytes=limits.max_bytes,
                options=limits.options,
            )
        )
        prediction_log = None
        if settings.prediction_log is not None:
            prediction_log = PredictionLog(settings.prediction_log, keep_images=settings.log_images)
        metrics, readiness = ServiceMetrics(), Readiness()
        webhooks = WebhookReceiver(
            models.registered_names, lambda: self._send(WAKE), SignatureCheck(secret) if secret else None
        )
        threads = stack.enter_context(ThreadPoolExecutor(parallel_requests, thread_name_prefix="predictions"))
        shadow = self._open_shadow(provider, metrics, prediction_log, watchers)
        service = InferenceService(provider, detectors, decoder, limits, metrics, prediction_log, shadow)

        def set_gauges() -> None:
            metrics.set_model(provider.current, provider.problem)
            if detectors is not None:
                metrics.set_detector(detectors.current, detectors.problem)
            if shadow is not None:
                shadow.set_gauges()

        def start_answering() -> None:
            self._send(READY)
            if shadow is not None:  # it is loaded only now, so that the service does not start later because of it
                shadow.start(stack)

        server = HttpServer(
            build_application(service, limits, metrics, webhooks, threads, readiness),
            self._shared_socket,
            settings.end_seconds,
            every_second=set_gauges,
            on_listening=start_answering,
            on_closed=lambda: self._send(CLOSED),
        )

        def stop(notice_seconds: float) -> None:
            readiness.draining = True
            time.sleep(notice_seconds)
            server.stop()

        threading.Thread(target=self._obey_supervisor, args=(watchers, stop), name="supervisor", daemon=True).start()
        self._loaded.set()
        server.serve_until_stopped()

    def _open_models(self, stack: ExitStack) -> CurrentModels:
        """Load the classifier and the detector, and follow their aliases. Worker 0 also reports banners and changes."""
        from cxr.serving.current_models import CurrentModels, ReportChange, log_change
        from cxr.serving.served_model import log_banners

        def write_promotion_log(registered_name: str, _: AliasChange) -> None:
            from cxr.tracking.aliases import Aliases

            Aliases(self._store, registered_name).synchronize()

        settings = self._settings
        on_change: list[ReportChange] = []
        if self._number == 0:
            on_change = [log_change, *([write_promotion_log] if settings.keep_log else [])]
        models = CurrentModels(
            self._store,
            settings.choice,
            settings.poll_seconds,
            load_predictor=self._load_predictor,
            on_change=on_change,
        )
        if self._number == 0:
            log_banners(models.classifier.current, models.served_detector)
        models.follow_aliases(stack)
        return models

    def _open_shadow(
        self,
        champion: ModelProvider,
        metrics: ServiceMetrics,
        prediction_log: PredictionLog | None,
        watchers: list[AliasWatcher],
    ) -> ShadowPredictor | None:
        """Prepare the shadow, if there is to be one, and add the watcher of its alias. Nothing is loaded yet."""
        from cxr.serving.alias_watcher import AliasWatcher
        from cxr.serving.rest.shadow import ShadowPredictor
        from cxr.serving.rest.shadow_metrics import ShadowMetrics
        from cxr.serving.shadow_provider import AliasShadowProvider

        settings = self._settings
        if settings.shadow is None:
            return None
        provider = AliasShadowProvider(
            self._store, settings.choice.registered_name, settings.shadow, champion, load_predictor=self._load_predictor
        )
        # A watcher of its own: the exchange of the champion never waits until a shadow is loaded. It reports no moves,
        # because the champion's watcher reports those of all aliases.
        watcher = AliasWatcher(provider, settings.poll_seconds)
        watchers.append(watcher)
        return ShadowPredictor(
            provider, watcher, ShadowMetrics(metrics.registry), prediction_log, settings.limits.max_pixels
        )

    def _obey_supervisor(self, watchers: list[AliasWatcher], stop: Callable[[float], None]) -> None:
        """Handle the messages of the supervisor. Stop at once if it is gone."""
        try:
            while not isinstance(message := self._connection.recv(), StopRequest):
                if message == WAKE:
                    for watcher in watchers:
                        watcher.wake()
        except (EOFError, OSError):
            message = StopRequest(0.0)
        stop(message.notice_seconds)

    def _send(self, message: str) -> None:
        with self._send_lock, suppress(OSError):  # the supervisor is gone
            self._connection.send(message)

"""Lets the shadow answer for images that clients have sent, in the time that their requests leave."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxr.errors import CxrError

if TYPE_CHECKING:
    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import PredictionResult
    from cxr.serving.alias_watcher import AliasWatcher
    from cxr.serving.prediction_log import LoggedRow, PredictionLog
    from cxr.serving.rest.shadow_metrics import ShadowMetrics
    from cxr.serving.served_model import ServedModel
    from cxr.serving.shadow_provider import AliasShadowProvider

log = logging.getLogger(__name__)

MAX_WAITING_IMAGES = 64
"""Most images that wait for the shadow in a worker."""
QUIET_SECONDS = 0.05
"""Time without a request before the shadow begins an image: a client that sends one request after another is load."""
STOP_SECONDS = 5.0
"""Longest time that the end of the service waits for the image that the shadow is answering."""


@dataclass(frozen=True)
class _WaitingImage:
    """An image that the shadow has not answered for yet.

    Attributes:
        image: the decoded image.
        shadow: the version to ask.
        client_result: what the client was told.
        row: its row in the prediction log; None if there is no log.
    """

    image: DecodedImage
    shadow: ServedModel
    client_result: PredictionResult
    row: LoggedRow | None


class ShadowPredictor:
    """A thread that lets the shadow answer, one image at a time, while its worker has no request.

    Requests only put images into its queue. If the queue is full, they are dropped and counted. Nothing that goes wrong
    here reaches a request.
    """

    def __init__(
        self,
        provider: AliasShadowProvider,
        watcher: AliasWatcher,
        metrics: ShadowMetrics,
        prediction_log: PredictionLog | None,
        max_pixels: int,
    ) -> None:
        """Prepare the thread.

        Args:
            provider: gives the shadow.
            watcher: keeps it equal to the registry's; not started yet.
            metrics: counts its answers.
            prediction_log: logs its answers; None to log none.
            max_pixels: most pixels of all waiting images together.
        """
        self.provider, self._watcher, self._metrics = provider, watcher, metrics
        self._prediction_log, self._max_pixels = prediction_log, max_pixels
        self._queue: deque[_WaitingImage] = deque()
        self._waiting_pixels = self._running_requests = 0
        self._last_request_end = time.monotonic()
        self._stopped = self._failing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._answer_waiting, name="shadow", daemon=True)

    def start(self, stack: ExitStack) -> None:
        """Load the shadow in the background and start the thread.

        Args:
            stack: stops both when it is closed.
        """
        self._watcher.start()
        stack.callback(self._watcher.stop)
        self._thread.start()
        stack.callback(self._stop)

    def set_gauges(self) -> None:
        """Set the gauges of the metrics."""
        self._metrics.set_shadow(self.provider.current, self.provider.problem, len(self._queue))

    @contextmanager
    def request_running(self) -> Iterator[None]:
        """Mark the block as a request: the shadow begins no image meanwhile."""
        with self._changed:
            self._running_requests += 1
        try:
            yield
        finally:
            with self._changed:
                self._running_requests -= 1
                self._last_request_end = time.monotonic()
                self._changed.notify_all()

    def submit(
        self,
        served: ServedModel,
        results: Sequence[PredictionResult],
        images: Sequence[DecodedImage],
        rows: Sequence[LoggedRow | None],
    ) -> None:
        """Ask the shadow about images, if there is one and it is another version. Returns at once.

        Args:
            served: the version that answers the client.
            results: its results.
            images: the images, in the same order.
            rows: their rows in the prediction log.
        """
        shadow = self.provider.current
        if shadow is None or shadow.version == served.version:
            return
        dropped = 0
        with self._changed:
            for result, image, row in zip(results, images, rows, strict=True):
                pixels = self._waiting_pixels + image.grey.size
                if len(self._queue) >= MAX_WAITING_IMAGES or pixels > self._max_pixels:
                    dropped += 1
                    continue
                self._queue.append(_WaitingImage(image, shadow, result, row))
                self._waiting_pixels = pixels
            self._changed.notify_all()
        self._metrics.dropped.inc(dropped)

    def _stop(self) -> None:
        """Stop after the image that is being answered; those that wait are given up."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(STOP_SECONDS)

    def _answer_waiting(self) -> None:
        while (waiting := self._next()) is not None:
            try:
                self._answer(waiting)
            except Exception as error:  # whatever is wrong with a shadow, the next image gets its chance
                self._metrics.errors.labels(waiting.shadow.version).inc()
                if not self._failing:
                    version = waiting.shadow.version
                    known = isinstance(error, CxrError)
                    log.warning("the shadow, version %s, cannot answer: %s", version, error, exc_info=not known)
                self._failing = True
            else:
                self._failing = False

    def _next(self) -> _WaitingImage | None:
        """Wait for an image and for a quiet moment; None when the service stops."""
        with self._changed:
            while not self._stopped:
                if not self._queue or self._running_requests:
                    self._changed.wait()
                elif (quiet := time.monotonic() - self._last_request_end) < QUIET_SECONDS:
                    self._changed.wait(QUIET_SECONDS - quiet)
                else:
                    waiting = self._queue.popleft()
                    self._waiting_pixels -= waiting.image.grey.size
                    return waiting
            return None

    def _answer(self, waiting: _WaitingImage) -> None:
        started = time.perf_counter()
        (result,) = waiting.shadow.predict([waiting.image])
        self._metrics.seconds.observe(time.perf_counter() - started)
        if self._prediction_log is not None and waiting.row is not None:
            self._prediction_log.append_shadow(waiting.row, waiting.shadow, result)
        agrees = _outcome(result) == _outcome(waiting.client_result)
        self._metrics.answers.labels(waiting.shadow.version, "yes" if agrees else "no").inc()


def _outcome(result: PredictionResult) -> str | None:
    """The label; None for an image that is refused, for whatever reason."""
    return result.prediction.label if result.prediction is not None else None

"""Answers images that were received: read in the sandbox, predicted by the version that answers, written as reports."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cxr.dicom_report.answer import ReportedAnswer, ReportedModel
from cxr.dicom_report.picture import PICTURE_SIDE, draw_picture
from cxr.dicom_report.secondary_capture import build_capture
from cxr.dicom_report.structured_report import build_report
from cxr.errors import DataError, ImageError, InstallationError
from cxr.images.pixels import shrink
from cxr.inference.checked_prediction import PredictionResult
from cxr.inference.explanation import grad_cam
from cxr.pacs.delivery import LOOK_SECONDS
from cxr.pacs.image_queue import ImageQueue, short_name
from cxr.pacs.metrics import NodeMetrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxr.images.dicom.source_image import SourceImage
    from cxr.images.sandbox import SandboxedDecoder
    from cxr.images.strict_decoding import DecodedImage
    from cxr.serving.model_provider import ModelProvider
    from cxr.serving.model_source import ServedModel

log = logging.getLogger(__name__)

UNREADABLE, FAILED = "unreadable", "failed"
"""Reasons why an image is a dead letter: nobody can say what it is; the node itself fails on it."""
_ATTEMPTS = 3
"""Times that the node fails on an image before it is a dead letter."""
_RETRY_SECONDS = 5.0
_BATCH = 50


class AnsweringWorker:
    """Answers what waits in the queue, one image after the other."""

    def __init__(
        self,
        queue: ImageQueue,
        provider: ModelProvider,
        decoder: SandboxedDecoder,
        metrics: NodeMetrics,
        *,
        capture: bool,
        deidentified: bool,
        on_report: Callable[[], None],
    ) -> None:
        """Connect the parts.

        Args:
            queue: the queue.
            provider: gives the model.
            decoder: reads images.
            metrics: counts answers.
            capture: whether an image with the answer is written, too.
            deidentified: whether reports leave out what identifies a patient.
            on_report: called when reports wait for delivery.
        """
        self._queue, self._provider, self._decoder, self._metrics = queue, provider, decoder, metrics
        self._capture, self._deidentified = capture, deidentified
        self._on_report = on_report
        self._failures: dict[str, int] = {}

    def work(self) -> float:
        """Answer some of the images that wait.

        Returns:
            Longest time to wait before the next call, seconds; 0 if more may wait.
        """
        names = self._queue.received()[:_BATCH]
        failed = False
        for name in names:
            started = time.perf_counter()
            try:
                self._answer(name)
            except ImageError as error:  # without its description there is nothing to write a report of
                self._give_up(name, f"{UNREADABLE}: {error.problem}", UNREADABLE)
            except InstallationError:
                raise
            except Exception as error:
                failed = True
                self._note_failure(name, error)
            else:
                self._failures.pop(name, None)
                self._metrics.answer_seconds.observe(time.perf_counter() - started)
        self._metrics.behind.set(self._provider.problem is not None)
        if failed:
            return _RETRY_SECONDS
        return 0.0 if names else LOOK_SECONDS

    def _answer(self, name: str) -> None:
        """Replace an image by its reports."""
        content = self._queue.read_image(name)
        source = self._decoder.describe(content)
        served = self._provider.current
        image, answer = self._predict(served, content)
        self._queue.keep_reports(name, self._write_reports(served, answer, source, image))
        self._on_report()
        if answer.refusal_reason is not None:
            self._metrics.refused.labels(answer.refusal_reason).inc()
        else:
            self._metrics.answered.labels(answer.label, served.version).inc()
        log.info("image %s was answered", short_name(name))

    def _predict(self, served: ServedModel, content: bytes) -> tuple[DecodedImage | None, ReportedAnswer]:
        model = ReportedModel.of(
            served.metadata,
            version=served.version or None,
            registered_name=self._provider.registered_name or None,
            banner=served.banner,
        )
        now = datetime.now(UTC)
        try:
            image = self._decoder.decode(content)
        except ImageError as error:
            return None, ReportedAnswer(model, now, refusal_reason=error.problem, refusal_text=error.detail)
        try:
            (result,) = served.predict([image])
        except ImageError as error:
            return image, ReportedAnswer(model, now, refusal_reason=error.problem, refusal_text=error.detail)
        if result.prediction is not None and not 0 <= result.prediction.probability <= 1:
            result = PredictionResult(None)
        return image, ReportedAnswer.of(result, model, now)

    def _write_reports(
        self, served: ServedModel, answer: ReportedAnswer, source: SourceImage, image: DecodedImage | None
    ) -> dict[str, bytes]:
        reports = {"report": build_report(answer, source, deidentified=self._deidentified)}
        if self._capture and image is not None:
            picture = _draw_picture(served, answer, image)
            reports["capture"] = build_capture(answer, source, picture, deidentified=self._deidentified)
        return reports

    def _note_failure(self, name: str, error: Exception) -> None:
        """Note a failure of the node itself. Texts of errors may hold values of the image, so none is written."""
        self._failures[name] = failures = self._failures.get(name, 0) + 1
        if isinstance(error, OSError):  # of the disk, and not of the image
            failures = self._failures[name] = 0
        *_, last = traceback.extract_tb(error.__traceback__)
        log.error(
            "image %s could not be answered: %s in %s, line %s", short_name(name), type(error).__name__,
            last.name, last.lineno,
        )  # fmt: skip
        if failures >= _ATTEMPTS:
            del self._failures[name]
            self._give_up(name, f"{FAILED}: {type(error).__name__}", FAILED)

    def _give_up(self, name: str, reason: str, kind: str) -> None:
        self._failures.pop(name, None)
        self._queue.give_up_image(name, reason)
        self._metrics.dead.labels(kind).inc()
        log.error("image %s is a dead letter (%s); see `cxr node_status`", short_name(name), reason)


def _draw_picture(served: ServedModel, answer: ReportedAnswer, image: DecodedImage) -> NDArray[np.uint8]:
    """Draw the answer over the image, with what counted for the network where that can be computed."""
    grey, heat = shrink(image.grey, PICTURE_SIDE), None
    if answer.probability is not None:
        with suppress(DataError):  # a network without a convolution
            heat = grad_cam(served.predictor, grey)
    return draw_picture(grey, answer, original_width=image.grey.shape[1], heat=heat, boxes=None, phantom_boxes=False)

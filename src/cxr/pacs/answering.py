"""Answers images that were received: read in the sandbox, predicted by the version that answers, written as reports."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cxr.dicom_report.answer import ReportedAnswer
from cxr.dicom_report.instance import CAPTURE, REPORT
from cxr.dicom_report.report_builder import CapturedImage, ReportBuilder
from cxr.errors import ImageError, InstallationError
from cxr.inference.checked_prediction import CheckedImage, PredictionResult, check_image, predict_checked
from cxr.pacs.delivery import LOOK_SECONDS
from cxr.pacs.image_queue import ImageQueue, short_name
from cxr.pacs.metrics import NodeMetrics
from cxr.serving.report_builders import report_builder

if TYPE_CHECKING:
    from cxr.images.sandbox import SandboxedDecoder
    from cxr.images.strict_decoding import DecodedImage
    from cxr.serving.model_provider import DetectorProvider, ModelProvider
    from cxr.serving.served_model import ServedModel

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
        detectors: DetectorProvider | None,
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
            detectors: gives the detector whose boxes captures show; None for none.
            decoder: reads images.
            metrics: counts answers.
            capture: whether an image with the answer is written, too.
            deidentified: whether reports leave out what identifies a patient.
            on_report: called when reports wait for delivery.
        """
        self._queue, self._provider, self._detectors = queue, provider, detectors
        self._decoder, self._metrics = decoder, metrics
        self._kinds, self._deidentified = (REPORT, CAPTURE) if capture else (REPORT,), deidentified
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
        builder = self._report_builder(served)
        image, checked, answer = self._predict(served, builder, content)
        captured = CapturedImage.of(image) if image is not None and builder.draws else None
        self._queue.keep_reports(name, builder.build(answer, source, captured, checked))
        self._on_report()
        if answer.refusal_reason is not None:
            self._metrics.refused.labels(answer.refusal_reason).inc()
        else:
            self._metrics.answered.labels(answer.label, served.version).inc()
        log.info("image %s was answered", short_name(name))

    def _report_builder(self, served: ServedModel) -> ReportBuilder:
        detectors = self._detectors
        return report_builder(
            served,
            self._provider.registered_name,
            detectors.current if detectors is not None else None,
            detectors.registered_name if detectors is not None else None,
            kinds=self._kinds,
            deidentified=self._deidentified,
        )

    def _predict(
        self, served: ServedModel, builder: ReportBuilder, content: bytes
    ) -> tuple[DecodedImage | None, CheckedImage | None, ReportedAnswer]:
        now, image = datetime.now(UTC), None
        try:
            image = self._decoder.decode(content)
            checked = check_image(builder.recipes, served.reference, image)
        except ImageError as error:
            answer = ReportedAnswer(builder.model, now, refusal_reason=error.problem, refusal_text=error.detail)
            return image, None, answer
        (result,) = predict_checked(served.predictor, [checked])
        if result.prediction is not None and not 0 <= result.prediction.probability <= 1:
            result = PredictionResult(None)
        return image, checked, ReportedAnswer.of(result, builder.model, now)

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

"""From the images of a request to its results: decode, check, predict, log and count."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from cxr.errors import ImageError
from cxr.inference.checked_prediction import check_image, predict_checked
from cxr.serving.rest.schemas import ImageProblem, ImageResult, RefusalDetail, RegionResult
from cxr.serving.rest.settings import RequestLimits

if TYPE_CHECKING:
    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import CheckedImage, PredictionResult
    from cxr.serving.detector_source import ServedDetector
    from cxr.serving.model_provider import DetectorProvider, ModelProvider
    from cxr.serving.prediction_log import LoggedRow, PredictionLog
    from cxr.serving.rest.metrics import ServiceMetrics
    from cxr.serving.rest.shadow import ShadowPredictor
    from cxr.serving.served_model import ServedModel

MAX_BATCH_IMAGES = 16
"""Most decoded images of a request in memory at once."""


class ImageDecoder(Protocol):
    """Decodes images that may be malicious."""

    def decode(self, data: bytes) -> DecodedImage:
        """Decode an image; raises ImageError if that fails."""


@dataclass(frozen=True)
class ServiceAnswer:
    """The results of a request.

    Attributes:
        served: the version that predicted all images.
        results: one per image.
        detector: the detector that drew all boxes; None if none was asked for, or there is none.
    """

    served: ServedModel
    results: list[ImageResult]
    detector: ServedDetector | None


_Batch = dict[int, tuple["DecodedImage", "CheckedImage"]]
"""Number of an image in its request to the image."""


class InferenceService:
    """Predicts the images of requests. Several threads use it at once."""

    def __init__(
        self,
        provider: ModelProvider,
        detectors: DetectorProvider | None,
        decoder: ImageDecoder,
        limits: RequestLimits,
        metrics: ServiceMetrics,
        prediction_log: PredictionLog | None,
        shadow: ShadowPredictor | None,
    ) -> None:
        """Connect the parts.

        Args:
            provider: gives the model.
            detectors: gives the detector that draws boxes; None for none.
            decoder: decodes images.
            limits: limits of a request.
            metrics: counts images and results.
            prediction_log: logs predictions; None to log none.
            shadow: lets another version answer, unseen; None for none.
        """
        self.provider, self.detectors = provider, detectors
        self._decoder, self._limits, self._metrics = decoder, limits, metrics
        self._prediction_log, self._shadow = prediction_log, shadow

    def predict(self, images: Sequence[bytes | ImageError], *, regions: bool) -> ServiceAnswer:
        """Predict all images of a request with the same version.

        Args:
            images: content of each image, or why it has none.
            regions: whether to draw boxes, too.

        Returns:
            The version and the detector, and one result per image.
        """
        with self._shadow.request_running() if self._shadow is not None else nullcontext():
            return self._predict_images(images, regions=regions)

    def _predict_images(self, images: Sequence[bytes | ImageError], *, regions: bool) -> ServiceAnswer:
        served = self.provider.current
        detector = self.detectors.current if regions and self.detectors is not None else None
        results: dict[int, ImageResult] = {}
        batch: _Batch = {}
        batch_pixels = 0
        self._metrics.in_flight.inc(len(images))
        try:
            for index, data in enumerate(images):
                try:
                    image, checked = self._decode_and_check(served, detector, data)
                except ImageError as error:
                    results[index] = _error_result(served, error)
                    continue
                # Small images share a network call; large ones must not be in memory together.
                if len(batch) == MAX_BATCH_IMAGES or batch_pixels + image.grey.size > self._limits.max_pixels:
                    results |= self._predict_batch(served, detector, batch)
                    batch, batch_pixels = {}, 0
                batch[index] = (image, checked)
                batch_pixels += image.grey.size
            results |= self._predict_batch(served, detector, batch)
        finally:
            self._metrics.in_flight.dec(len(images))
        ordered = [results[index] for index in range(len(images))]
        if regions:
            ordered = [result.model_copy(update={"regions": result.regions}) for result in ordered]
        for result in ordered:
            self._metrics.count_result(served, result)
            if detector is not None and result.regions is not None:
                self._metrics.count_regions(detector, result.regions)
        return ServiceAnswer(served, ordered, detector)

    def _decode_and_check(
        self, served: ServedModel, detector: ServedDetector | None, data: bytes | ImageError
    ) -> tuple[DecodedImage, CheckedImage]:
        if isinstance(data, ImageError):
            raise data
        with self._metrics.time_phase("reading"):
            image = self._decoder.decode(data)
        with self._metrics.time_phase("looking"):
            recipes = served.predictor.recipes if detector is None else (*served.predictor.recipes, detector.recipe)
            return image, check_image(tuple(dict.fromkeys(recipes)), served.reference, image)

    def _predict_batch(
        self, served: ServedModel, detector: ServedDetector | None, batch: _Batch
    ) -> dict[int, ImageResult]:
        if not batch:
            return {}
        with self._metrics.time_phase("network"):
            results = predict_checked(served.predictor, [checked for _, checked in batch.values()])
        self._log_and_shadow(served, results, [image for image, _ in batch.values()])
        answers = {
            index: _add_warnings(_image_result(served, result), batch[index][0])
            for index, result in zip(batch, results, strict=True)
        }
        return answers if detector is None else answers | self._draw_boxes(detector, batch, answers)

    def _log_and_shadow(
        self, served: ServedModel, results: Sequence[PredictionResult], images: Sequence[DecodedImage]
    ) -> None:
        """Log the results, and let the shadow answer for the same images later."""
        rows: Sequence[LoggedRow | None] = [None] * len(images)
        if self._prediction_log is not None:
            rows = self._prediction_log.append(served, results, images)
        if self._shadow is not None:
            self._shadow.submit(served, results, images, rows)

    def _draw_boxes(
        self, detector: ServedDetector, batch: _Batch, answers: dict[int, ImageResult]
    ) -> dict[int, ImageResult]:
        """Add the boxes to the results of images that have a probability."""
        accepted = [index for index in batch if answers[index].probability is not None]
        prepared = [batch[index][1].prepared[detector.recipe] for index in accepted]
        with self._metrics.time_phase("regions"):
            boxes = detector.draw_boxes(prepared, [batch[index][0].grey.shape for index in accepted])
        return {
            index: answers[index].model_copy(update={"regions": [RegionResult(**asdict(box)) for box in image_boxes]})
            for index, image_boxes in zip(accepted, boxes, strict=True)
        }


def _image_result(served: ServedModel, result: PredictionResult) -> ImageResult:
    refusal, prediction = result.refusal, result.prediction
    if refusal is not None or prediction is None:
        detail = RefusalDetail(kind=refusal.kind, detail=refusal.detail) if refusal is not None else None
        return ImageResult(
            label=None, probability=None, threshold=served.metadata.threshold, refusal=detail, error=None
        )
    if not 0 <= prediction.probability <= 1:
        return _error_result(
            served,
            ImageError(
                "no_answer",
                f"expected a probability from 0 to 1, received {prediction.probability} from the network; "
                "the image is not at fault: tell the operator of the service",
            ),
        )
    return ImageResult(
        label=prediction.label,
        probability=prediction.probability,
        threshold=prediction.threshold,
        refusal=None,
        error=None,
    )


def _add_warnings(result: ImageResult, image: DecodedImage) -> ImageResult:
    if not image.warnings:
        return result
    warnings = [ImageProblem(problem=kind, detail=detail) for kind, detail in image.warnings]
    return result.model_copy(update={"warnings": warnings})


def _error_result(served: ServedModel, error: ImageError) -> ImageResult:
    problem = ImageProblem(problem=error.problem, detail=error.detail)
    return ImageResult(label=None, probability=None, threshold=served.metadata.threshold, refusal=None, error=problem)

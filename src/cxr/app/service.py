"""The service behind the page: one model and one sandboxed decoder for all visitors of the server."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import streamlit as st

from cxr.app.examples import EXAMPLES, draw_example
from cxr.app.settings import AppSettings
from cxr.images.reading_options import ReadingOptions
from cxr.images.recipes import apply_recipe
from cxr.images.sandbox import SandboxedDecoder
from cxr.serving.current_models import CurrentModels
from cxr.serving.detector_source import ServedDetector
from cxr.serving.served_model import ServedModel
from cxr.tracking.signatures import TrustedKeys
from cxr.tracking.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import PredictionResult
    from cxr.regions.scoring import ScoredBox
    from cxr.serving.prediction_log import PredictionLog


class PageService:
    """Decodes uploaded files and predicts with the version that the registry names."""

    def __init__(self, settings: AppSettings) -> None:
        """Load the model.

        Args:
            settings: which model, and the limits of files.

        Raises:
            MissingInputError: if the local store or the folder doesn't exist, or the model of a folder isn't evaluated.
            RegistryError: if the store doesn't answer, no version has the alias, or its version cannot predict.
            ParameterError: if the prediction log cannot be written.
        """
        self.settings = settings
        store = Store(settings.tracking_uri, trusted_keys=TrustedKeys.read(settings.require_signature))
        self._models = CurrentModels(store, settings.choice, settings.seconds)
        self._log: PredictionLog | None = None
        if settings.log_predictions is not None:
            from cxr.serving.prediction_log import PredictionLog

            self._log = PredictionLog(settings.log_predictions, keep_images=settings.log_pixels)
        # One call of the network at a time: two at once would take as long and twice the memory.
        self._network_lock = threading.Lock()
        # If a step fails, no process and no thread is left: the next visit tries again.
        with ExitStack() as resources:
            self._decoder = resources.enter_context(
                SandboxedDecoder(
                    seconds=settings.read_seconds,
                    max_bytes=settings.max_megabytes * 2**20,
                    options=ReadingOptions(
                        round(settings.max_megapixels * 1e6),
                        settings.scale_16_bit,
                        frozenset(settings.other_modalities),
                    ),
                )
            )
            # The first prediction compiles the networks.
            self.predict(self.current, [self.decode(draw_example(EXAMPLES[0]))])
            self._models.follow_aliases(resources)
            self._resources = resources.pop_all()

    def close(self) -> None:
        """Stop following the registry, and end the processes that decode. A second call does nothing."""
        self._resources.close()

    @property
    def detector(self) -> ServedDetector | None:
        """The detector that draws boxes now; None if there is none."""
        return self._models.served_detector

    @property
    def detector_name(self) -> str:
        """Name of the registered detector; empty for a detector from a folder, and without one."""
        return "" if self._models.detector is None else self._models.detector.registered_name

    @property
    def current(self) -> ServedModel:
        """The model that predicts now."""
        return self._models.classifier.current

    @property
    def problem(self) -> str | None:
        """Why another version than the one in the registry predicts or draws boxes; None if there is no problem."""
        classifier, detector = self._models.classifier, self._models.detector
        if self._models.registry_unreachable:
            return f"The model registry does not answer; version {classifier.current.version} goes on."
        if classifier.problem is None and detector is not None and detector.problem is not None:
            return f"Boxes: {detector.problem}"
        return classifier.problem

    def decode(self, data: bytes) -> DecodedImage:
        """Decode a file in a process without rights.

        Args:
            data: content of the file.

        Returns:
            The decoded image.

        Raises:
            ImageError: if it cannot be used, or takes too long.
        """
        return self._decoder.decode(data)

    def predict(self, served: ServedModel, images: Sequence[DecodedImage]) -> list[PredictionResult]:
        """Predict for images.

        Args:
            served: the model that predicts.
            images: decoded images.

        Returns:
            One result per image, in order.
        """
        with self._network_lock:
            return served.predict(images)

    def log_results(
        self, served: ServedModel, results: Sequence[PredictionResult], images: Sequence[DecodedImage]
    ) -> None:
        """Append results to the prediction log, if there is one.

        Args:
            served: the model that predicted.
            results: its results.
            images: the images, in the same order.
        """
        if self._log is not None:
            self._log.append(served, results, images)

    def heat_map(self, served: ServedModel, image: DecodedImage) -> NDArray[np.float32]:
        """Compute which parts of an image counted for pneumonia (Grad-CAM).

        Args:
            served: the model that predicts.
            image: the decoded image.

        Returns:
            ``(height, width)`` of the image, float32, 0 to 1.
        """
        from cxr.inference.explanation import grad_cam

        with self._network_lock:
            return grad_cam(served.predictor, image.grey)

    def draw_boxes(self, detector: ServedDetector, image: DecodedImage) -> tuple[ScoredBox, ...]:
        """Draw boxes around the opacities of an image.

        Args:
            detector: the detector.
            image: the decoded image.

        Returns:
            The boxes by falling score, in pixels of the image.
        """
        with self._network_lock:
            return detector.draw_boxes([apply_recipe(detector.recipe, image.grey)], [image.grey.shape])[0]


@st.cache_resource(show_spinner="Loading the model. The first time takes some seconds.", on_release=PageService.close)
def shared_service(settings: AppSettings) -> PageService:
    """Load the model once for the whole server. A failure is not cached, so the next visit tries again.

    Args:
        settings: settings of the page.

    Returns:
        The service.

    Raises:
        CxrError: if there is no model that can predict.
    """
    return PageService(settings)

"""The service behind the page: one model and one sandboxed decoder for all visitors of the server."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from cxr.app.examples import EXAMPLES, draw_example
from cxr.app.settings import AppSettings
from cxr.images.sandbox import SandboxedDecoder
from cxr.models.backend import load_keras
from cxr.serving.alias_watcher import AliasWatcher
from cxr.serving.model_provider import AliasModelProvider
from cxr.serving.model_source import ServedModel, folder_source
from cxr.tracking.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxr.images.decoding import DecodedImage
    from cxr.inference.checked_prediction import PredictionResult
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
        load_keras()
        self.settings = settings
        self._provider: AliasModelProvider | None = None
        self._watcher: AliasWatcher | None = None
        if settings.model is not None:
            self._loaded = folder_source(settings.model, settings.evaluation, settings.reference).load()
        else:
            self._provider = AliasModelProvider(
                Store(settings.tracking_uri), settings.registered_name, settings.alias, fallback=settings.fallback
            )
            self._loaded = self._provider.current
            self._watcher = AliasWatcher(self._provider, settings.seconds)
            self._watcher.start()
        self._decoder = SandboxedDecoder(
            seconds=settings.read_seconds,
            max_bytes=settings.max_megabytes * 2**20,
            max_pixels=round(settings.max_megapixels * 1e6),
        )
        self._log: PredictionLog | None = None
        if settings.log_predictions is not None:
            from cxr.serving.prediction_log import PredictionLog

            self._log = PredictionLog(settings.log_predictions, keep_images=settings.log_pixels)
        # One call of the network at a time: two at once would take as long and twice the memory.
        self._network_lock = threading.Lock()
        # The first prediction compiles the networks.
        self.predict(self._loaded, [self.decode(draw_example(EXAMPLES[0]))])

    @property
    def current(self) -> ServedModel:
        """The model that predicts now."""
        return self._loaded if self._provider is None else self._provider.current

    @property
    def problem(self) -> str | None:
        """Why another version than the one in the registry predicts; None if there is no problem."""
        if self._provider is None or self._watcher is None:
            return None
        if self._watcher.registry_unreachable:
            return f"The model registry does not answer; version {self._provider.current.version} goes on."
        return self._provider.problem

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


@st.cache_resource(show_spinner="Loading the model. The first time takes some seconds.")
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

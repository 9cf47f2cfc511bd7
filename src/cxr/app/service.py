"""What answers on the page: one model and one reader of files for all visitors of the server."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from cxr.app.examples import EXAMPLES, draw
from cxr.app.settings import Settings
from cxr.images.sandbox import LimitedReader
from cxr.models.backend import load_keras
from cxr.serving.alias_watcher import Watcher
from cxr.serving.model_provider import Served, ServedAlias
from cxr.serving.model_source import from_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxr.images.decoding import Picture
    from cxr.inference.answers import Answer
    from cxr.serving.prediction_log import PredictionLog


class Service:
    """The version that answers, kept in line with the registry, and the reader of uploaded files."""

    def __init__(self, settings: Settings) -> None:
        """Load the model.

        Args:
            settings: which one, and the limits of files.

        Raises:
            MissingInputError: if there is no such local store or folder, or the model of a folder isn't evaluated.
            RegistryError: if the store doesn't answer, nobody has the alias, or its version doesn't answer.
            ParameterError: if the prediction log cannot be written.
        """
        load_keras()
        self.settings = settings
        self._alias: ServedAlias | None = None
        self._watcher: Watcher | None = None
        if settings.model is not None:
            beside = [None if folder is None else Path(folder) for folder in (settings.evaluation, settings.reference)]
            self._loaded = from_folder(Path(settings.model), *beside).load()
        else:
            self._alias = ServedAlias(
                settings.tracking_uri, settings.registered_name, settings.alias, fallback=settings.fallback
            )
            self._loaded = self._alias.current
            self._watcher = Watcher(self._alias, settings.seconds)
            self._watcher.start()
        self._reader = LimitedReader(
            seconds=settings.read_seconds,
            max_bytes=settings.max_megabytes * 2**20,
            max_pixels=round(settings.max_megapixels * 1e6),
        )
        self._log: PredictionLog | None = None
        if settings.log_predictions is not None:
            from cxr.serving.prediction_log import PredictionLog

            self._log = PredictionLog(Path(settings.log_predictions), pixels=settings.log_pixels)
        # Visitors take turns at the network: two at once would only make both wait, with twice the memory.
        self._turn = threading.Lock()
        self.answer(self._loaded, [self.read(draw(EXAMPLES[0]))])  # the first answer compiles the networks

    @property
    def current(self) -> Served:
        """The version that answers now."""
        return self._loaded if self._alias is None else self._alias.current

    @property
    def problem(self) -> str | None:
        """Why the registry's word is not followed at the moment; None if it is."""
        if self._alias is None or self._watcher is None:
            return None
        if self._watcher.away:
            return f"The model registry does not answer; version {self._alias.current.version} goes on."
        return self._alias.problem

    def read(self, data: bytes) -> Picture:
        """Read a file in a limited process.

        Args:
            data: content of the file.

        Returns:
            The picture.

        Raises:
            ImageError: if it cannot be used, or takes too long.
        """
        return self._reader.read(data)

    def answer(self, served: Served, pictures: Sequence[Picture]) -> list[Answer]:
        """Answer for pictures.

        Args:
            served: the version that answers.
            pictures: decoded pictures.

        Returns:
            One answer per picture, in order.
        """
        with self._turn:
            return served.answer(pictures)

    def note(self, served: Served, answers: Sequence[Answer], pictures: Sequence[Picture]) -> None:
        """Keep answers in the prediction log, if there is one.

        Args:
            served: the version that answered.
            answers: its answers.
            pictures: what they are about.
        """
        if self._log is not None:
            self._log.append(served, answers, pictures)

    def heat(self, served: Served, picture: Picture) -> NDArray[np.float32]:
        """Find out which parts of a picture counted for pneumonia (Grad-CAM).

        Args:
            served: the version that answered.
            picture: the picture.

        Returns:
            ``(height, width)`` of the picture, float32, 0 to 1.
        """
        from cxr.inference.explanation import grad_cam

        with self._turn:
            return grad_cam(served.predictor, picture.grey)


@st.cache_resource(show_spinner="Loading the model. The first time takes some seconds.")
def opened(settings: Settings) -> Service:
    """Load the model once for the whole server; a failure is not kept, so the next visit tries again.

    Args:
        settings: what the page was started with.

    Returns:
        The service.

    Raises:
        CxrError: if there is no model that can answer.
    """
    return Service(settings)

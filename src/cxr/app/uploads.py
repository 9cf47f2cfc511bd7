"""Images of one visitor: decoded, predicted, and kept in the visitor's session only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import streamlit as st
from numpy.typing import NDArray

from cxr.app.service import PageService
from cxr.app.texts import problem_sentence
from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.errors import ImageError
from cxr.images.pixels import shrink
from cxr.inference.checked_prediction import PredictionResult
from cxr.models.prediction_sets import label_of
from cxr.serving.served_model import ServedModel

PREVIEW_SIDE = 1024
"""Longer side of an image on the page, in pixels."""
_OUTCOMES = "outcomes"
"""Key of the outcomes in the session."""


@dataclass(frozen=True)
class UploadedImage:
    """A file that a visitor wants a prediction for.

    Attributes:
        key: unique for every upload.
        name: name of the file; it is shown and never used as a path.
        read: returns the content.
        drawn: whether it is one of the drawn examples.
    """

    key: str
    name: str
    read: Callable[[], bytes]
    drawn: bool = False


@dataclass(frozen=True)
class ImageOutcome:
    """What is known about an uploaded image.

    Attributes:
        image: the uploaded image.
        result: prediction or refusal; None if the file could not be read.
        problem: why it could not be read, for people.
        error: why it could not be read, for the CSV: kind and description.
        sha256: digest of the content.
        width: pixels per row; None if it could not be read.
        height: number of rows; None if it could not be read.
        preview: the image before any recipe as a JPEG file, no side above :data:`PREVIEW_SIDE`; empty if it could not
            be read.
        warnings: what is unusual about a file that was read: kinds of problem and their descriptions.
    """

    image: UploadedImage
    result: PredictionResult | None = None
    problem: str = ""
    error: str = ""
    sha256: str = ""
    width: int | None = None
    height: int | None = None
    preview: bytes = b""
    warnings: tuple[tuple[str, str], ...] = ()

    @property
    def probability(self) -> float | None:
        """Calibrated probability of pneumonia, 0 to 1; None without a prediction."""
        if self.result is None or self.result.prediction is None:
            return None
        return self.result.prediction.probability

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes that fit the image; None without a prediction, and if the model has no prediction sets."""
        if self.result is None or self.result.prediction is None:
            return None
        return self.result.prediction.classes

    def label(self, threshold: float) -> str | None:
        """Label the image.

        Args:
            threshold: threshold of the visitor, 0 to 1.

        Returns:
            ``"NORMAL"`` or ``"PNEUMONIA"``; None without a prediction. The label of a model with prediction sets, which
            may be ``"UNCERTAIN"``, does not depend on the threshold.
        """
        if self.probability is None:
            return None
        if self.classes is not None:
            return label_of(self.classes)
        return PNEUMONIA if self.probability >= threshold else NORMAL

    @property
    def reason(self) -> str:
        """Why there is no prediction, for people; empty if there is one."""
        if self.result is not None and self.result.refusal is not None:
            return f"No answer: {self.result.refusal.detail}."
        return self.problem


def predict_images(service: PageService, served: ServedModel, images: Sequence[UploadedImage]) -> list[ImageOutcome]:
    """Predict for the images of a visitor, once per image and version.

    Args:
        service: decodes and predicts.
        served: the model that predicts.
        images: all images of the visitor.

    Returns:
        One outcome per image, in order.
    """
    version = f"{served.version} {served.since.isoformat()}"
    previous: dict[tuple[str, str], ImageOutcome] = st.session_state.get(_OUTCOMES, {})
    keys = [(version, image.key) for image in images]
    # Stored one by one: a click on the page can end this run at any point and start another.
    outcomes = st.session_state[_OUTCOMES] = {key: previous[key] for key in keys if key in previous}
    missing = [image for image in images if (version, image.key) not in outcomes]
    progress = st.progress(0.0) if missing else st.empty()
    for number, image in enumerate(missing):
        progress.progress(number / len(missing), text=f"Reading film {number + 1} of {len(missing)}")
        outcomes[version, image.key] = _predict(service, served, image)
    progress.empty()
    return [outcomes[key] for key in keys]


def _predict(service: PageService, served: ServedModel, image: UploadedImage) -> ImageOutcome:
    data = image.read()
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        decoded = service.decode(data)
        # One image per call: a batch of another size would have to be compiled first.
        results = service.predict(served, [decoded])
    except ImageError as error:
        return ImageOutcome(image, problem=problem_sentence(error.problem), error=str(error), sha256=sha256)
    height, width = decoded.grey.shape
    if not image.drawn:
        service.log_results(served, results, [decoded])
    return ImageOutcome(image, results[0], "", "", sha256, width, height, make_preview(decoded.grey), decoded.warnings)


def make_preview(grey: NDArray[np.uint8]) -> bytes:
    """Make an image small enough for the page.

    Args:
        grey: ``(height, width)``, uint8.

    Returns:
        A JPEG file, no side above :data:`PREVIEW_SIDE`.
    """
    _, data = cv2.imencode(".jpeg", shrink(grey, PREVIEW_SIDE), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(data.tobytes())

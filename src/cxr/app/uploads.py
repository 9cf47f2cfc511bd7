"""Films of one visitor: read, answered and kept in the visitor's memory alone, until the visitor goes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import streamlit as st
from numpy.typing import NDArray

from cxr.app.service import Service
from cxr.app.texts import unreadable
from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.errors import ImageError
from cxr.inference.answers import Answer
from cxr.serving.model_provider import Served

PREVIEW = 1024
"""Longer side of a picture on the page, in pixels."""
_KEPT = "outcomes"


@dataclass(frozen=True)
class Film:
    """A file that a visitor wants an answer for.

    Attributes:
        key: another one for every upload.
        name: name of the file, shown and never used as a path.
        read: gives the content.
        drawn: whether it is one of the drawn examples.
    """

    key: str
    name: str
    read: Callable[[], bytes]
    drawn: bool = False


@dataclass(frozen=True)
class Outcome:
    """What is known of a film.

    Attributes:
        film: the film.
        answer: prediction or refusal; None if the file could not be read.
        problem: why it could not be read, for people.
        error: the same for the CSV: kind and description.
        sha256: digest of the content.
        width: pixels per row; None if it could not be read.
        height: rows, likewise.
        preview: the picture as it came, as JPEG, no side above :data:`PREVIEW`; empty if it could not be read.
    """

    film: Film
    answer: Answer | None = None
    problem: str = ""
    error: str = ""
    sha256: str = ""
    width: int | None = None
    height: int | None = None
    preview: bytes = b""

    @property
    def probability(self) -> float | None:
        """Calibrated probability of pneumonia, 0 to 1; None without an answer."""
        if self.answer is None or self.answer.prediction is None:
            return None
        return self.answer.prediction.probability

    def label(self, threshold: float) -> str | None:
        """Hold the probability against a threshold.

        Args:
            threshold: 0 to 1.

        Returns:
            ``"NORMAL"`` or ``"PNEUMONIA"``; None without an answer.
        """
        if self.probability is None:
            return None
        return PNEUMONIA if self.probability >= threshold else NORMAL

    @property
    def why_not(self) -> str:
        """Why there is no answer, for people; empty if there is one."""
        if self.answer is not None and self.answer.refusal is not None:
            return f"No answer: {self.answer.refusal.detail}."
        return self.problem


def outcomes(service: Service, served: Served, films: Sequence[Film]) -> list[Outcome]:
    """Answer for films, each once per version.

    Args:
        service: reads and answers.
        served: the version that answers.
        films: all films of the visitor.

    Returns:
        One outcome per film, in order.
    """
    version = f"{served.version} {served.since.isoformat()}"
    before: dict[tuple[str, str], Outcome] = st.session_state.get(_KEPT, {})
    keys = [(version, film.key) for film in films]
    # Kept one by one: a click on the page ends this run anywhere and starts another.
    kept = st.session_state[_KEPT] = {key: before[key] for key in keys if key in before}
    missing = [film for film in films if (version, film.key) not in kept]
    bar = st.progress(0.0) if missing else st.empty()
    for done, film in enumerate(missing):
        bar.progress(done / len(missing), text=f"Reading film {done + 1} of {len(missing)}")
        kept[version, film.key] = _answered(service, served, film)
    bar.empty()
    return [kept[key] for key in keys]


def _answered(service: Service, served: Served, film: Film) -> Outcome:
    data = film.read()
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        picture = service.read(data)
        # One by one: a batch of another size would first have to be compiled.
        answers = service.answer(served, [picture])
    except ImageError as error:
        return Outcome(film, problem=unreadable(error.problem), error=str(error), sha256=sha256)
    height, width = picture.grey.shape
    if not film.drawn:
        service.note(served, answers, [picture])
    return Outcome(film, answers[0], "", "", sha256, width, height, preview(picture.grey))


def preview(grey: NDArray[np.uint8]) -> bytes:
    """Make a picture small enough for the page.

    Args:
        grey: ``(height, width)``, uint8.

    Returns:
        A JPEG file, no side above :data:`PREVIEW`.
    """
    _, data = cv2.imencode(".jpeg", shrunk(grey), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return bytes(data.tobytes())


def shrunk(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink a picture to the page's size, if it is larger.

    Args:
        grey: ``(height, width)``, uint8.

    Returns:
        The same with no side above :data:`PREVIEW`, and the ratio of its sides kept.
    """
    scale = PREVIEW / max(grey.shape)
    if scale >= 1:
        return grey
    height, width = (max(1, round(scale * side)) for side in grey.shape)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)

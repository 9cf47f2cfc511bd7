"""The desk of a worker: images come in as bytes, answers go out, and what happened is counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import cv2

from cxr.errors import ImageError
from cxr.serving.rest.messages import ImageAnswer, Refused, Unreadable
from cxr.serving.rest.settings import Limits

if TYPE_CHECKING:
    from cxr.answering import Answer
    from cxr.images import Picture
    from cxr.serving.prediction_log import PredictionLog
    from cxr.serving.rest.measurements import Measurements
    from cxr.serving.served import Served

log = logging.getLogger(__name__)

BATCH = 16
"""Most pictures that are held decoded at once for a request."""


class Standing(Protocol):
    """A model that answers: the one with an alias, or one of a folder."""

    @property
    def registered_name(self) -> str:
        """Name of the registered model, empty for a folder."""

    @property
    def current(self) -> Served:
        """What answers now."""

    @property
    def problem(self) -> str | None:
        """Why something else ought to answer."""


@dataclass(frozen=True)
class StandingFolder:
    """A model of a folder, which never changes."""

    current: Served
    registered_name: str = ""
    problem: str | None = None


class Reader(Protocol):
    """Reads an image without trusting it."""

    def read(self, data: bytes) -> Picture:
        """Decode; raises ImageError."""


class Desk:
    """Answers for the images of one request at a time; called by several threads."""

    def __init__(
        self,
        standing: Standing,
        reader: Reader,
        limits: Limits,
        measurements: Measurements,
        predictions: PredictionLog | None = None,
    ) -> None:
        """Take the place.

        Args:
            standing: the model.
            reader: reads images.
            limits: bounds on requests.
            measurements: where it is counted.
            predictions: where predictions are kept, None for nowhere.
        """
        self.standing, self._reader, self._limits, self._measurements = standing, reader, limits, measurements
        self._predictions = predictions

    def answer(self, images: Sequence[bytes | ImageError]) -> tuple[Served, list[ImageAnswer]]:
        """Answer for images, all by the same version.

        Args:
            images: content of each, or why there is none.

        Returns:
            The version, and one answer per image.
        """
        served = self.standing.current
        answers: dict[int, ImageAnswer] = {}
        batch: dict[int, Picture] = {}
        self._measurements.in_flight.inc(len(images))
        try:
            for number, image in enumerate(images):
                try:
                    picture = self._read(image)
                except ImageError as error:
                    answers[number] = _unreadable(served, error)
                    continue
                # Small pictures are answered together; large ones are not kept waiting for each other in memory.
                if sum(one.grey.size for one in batch.values()) + picture.grey.size > self._limits.pixels:
                    answers |= self._together(served, batch)
                    batch = {}
                batch[number] = picture
                if len(batch) == BATCH:
                    answers |= self._together(served, batch)
                    batch = {}
            answers |= self._together(served, batch)
        finally:
            self._measurements.in_flight.dec(len(images))
        ordered = [answers[number] for number in range(len(images))]
        for one in ordered:
            self._measurements.answer(served, one)
        return served, ordered

    def _read(self, image: bytes | ImageError) -> Picture:
        if isinstance(image, ImageError):
            raise image
        with self._measurements.phase("reading"):
            return self._reader.read(image)

    def _together(self, served: Served, batch: dict[int, Picture]) -> dict[int, ImageAnswer]:
        if not batch:
            return {}
        pictures = list(batch.values())
        try:
            with self._measurements.phase("answering"):
                given = served.answer(pictures)
        except (ImageError, cv2.error) as error:  # a recipe that cannot cope, with one pixel for example
            if len(batch) > 1:
                found: dict[int, ImageAnswer] = {}
                for number, picture in batch.items():
                    found |= self._together(served, {number: picture})
                return found
            why = error.detail if isinstance(error, ImageError) else "the model's recipe cannot cope with its size"
            return {number: _unreadable(served, ImageError("unsuitable", why)) for number in batch}
        self._keep(served, given, pictures)
        return {number: _worded(served, one) for number, one in zip(batch, given, strict=True)}

    def _keep(self, served: Served, given: Sequence[Answer], pictures: Sequence[Picture]) -> None:
        if self._predictions is None:
            return
        try:
            self._predictions.append(served, given, pictures)
        except OSError as error:  # a full disk must not keep anybody from an answer
            log.warning("predictions are not logged: %s", error)


def _worded(served: Served, answer: Answer) -> ImageAnswer:
    threshold = served.card.threshold
    refusal, prediction = answer.refusal, answer.prediction
    if refusal is not None or prediction is None:
        why = Refused(kind=refusal.kind, detail=refusal.detail) if refusal is not None else None
        return ImageAnswer(label=None, probability=None, threshold=threshold, refusal=why, error=None)
    if not 0 <= prediction.probability <= 1:
        return _unreadable(served, ImageError("no_answer", f"the network gave {prediction.probability}"))
    return ImageAnswer(
        label=prediction.label,
        probability=prediction.probability,
        threshold=prediction.threshold,
        refusal=None,
        error=None,
    )


def _unreadable(served: Served, error: ImageError) -> ImageAnswer:
    why = Unreadable(problem=error.problem, detail=error.detail)
    return ImageAnswer(label=None, probability=None, threshold=served.card.threshold, refusal=None, error=why)

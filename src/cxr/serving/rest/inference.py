"""The desk of a worker: images come in as bytes, answers go out, and what happened is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cxr.errors import ImageError
from cxr.inference.answers import conclude, look
from cxr.serving.rest.schemas import ImageAnswer, Refused, Unreadable
from cxr.serving.rest.settings import Limits

if TYPE_CHECKING:
    from cxr.images.decoding import Picture
    from cxr.inference.answers import Answer, Seen
    from cxr.serving.model_provider import Served
    from cxr.serving.prediction_log import PredictionLog
    from cxr.serving.rest.metrics import Measurements

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
        batch: dict[int, tuple[Picture, Seen]] = {}
        pixels = 0
        self._measurements.in_flight.inc(len(images))
        try:
            for number, image in enumerate(images):
                try:
                    picture, seen = self._look(served, image)
                except ImageError as error:
                    answers[number] = _unreadable(served, error)
                    continue
                # Small pictures are answered together; large ones do not wait for each other in memory.
                if len(batch) == BATCH or pixels + picture.grey.size > self._limits.pixels:
                    answers |= self._conclude(served, batch)
                    batch, pixels = {}, 0
                batch[number] = (picture, seen)
                pixels += picture.grey.size
            answers |= self._conclude(served, batch)
        finally:
            self._measurements.in_flight.dec(len(images))
        ordered = [answers[number] for number in range(len(images))]
        for one in ordered:
            self._measurements.answer(served, one)
        return served, ordered

    def _look(self, served: Served, image: bytes | ImageError) -> tuple[Picture, Seen]:
        if isinstance(image, ImageError):
            raise image
        with self._measurements.phase("reading"):
            picture = self._reader.read(image)
        with self._measurements.phase("looking"):
            return picture, look(served.predictor.recipes, served.reference, picture)

    def _conclude(self, served: Served, batch: dict[int, tuple[Picture, Seen]]) -> dict[int, ImageAnswer]:
        if not batch:
            return {}
        with self._measurements.phase("network"):
            given = conclude(served.predictor, [seen for _, seen in batch.values()])
        if self._predictions is not None:
            self._predictions.append(served, given, [picture for picture, _ in batch.values()])
        return {number: _worded(served, one) for number, one in zip(batch, given, strict=True)}


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

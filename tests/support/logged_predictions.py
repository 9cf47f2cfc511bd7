"""Answers as they are logged: films with chosen statistics, probabilities around their classes, a clock that is set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.images.decoding import Picture
from cxr.inference.answers import Answer
from cxr.inference.predictor import PooledPredictor, Prediction
from cxr.inference.reference.features import OUTLINE, STATISTICS
from cxr.inference.reference.reference import EMBEDDED, Film, Reference, Refusal
from cxr.models.metadata import ModelCard
from cxr.serving.model_provider import Served
from cxr.serving.prediction_log import PredictionLog
from support.model_folders import card

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
EVER = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC))
THRESHOLD = 0.5
COUNTED = {"test": {"films": 300, "refused": 3}}
"""Facts of a reference: what its check said of films that it had not seen."""


@dataclass
class Clock:
    """Gives the time that it is set to."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


def served(version: str = "3", alias: str = "champion", model_card: ModelCard | None = None) -> Served:
    """A version with a card and nothing to load: who has answered is all that a log wants to know of it."""
    return Served(version, alias, PooledPredictor((), model_card or card().completed(1.0, THRESHOLD, "by hand")))


def film(statistics: NDArray[np.float64], embedding: NDArray[np.float64]) -> Film:
    values = dict(zip(STATISTICS, map(float, statistics), strict=True))
    return Film(values, embedding.astype(np.float32), np.zeros(OUTLINE, dtype=np.float32))


def films(count: int, seed: int, *, brighter: float = 0.0, moved: float = 0.0) -> list[Film]:
    """Films of one scanner, or of another one that is brighter and places patients otherwise."""
    generator = np.random.default_rng(seed)
    values = generator.normal(100, 20, (count, len(STATISTICS)))
    values[:, 0] += brighter
    points = generator.normal(size=(count, EMBEDDED))
    points[:, :4] += moved
    return [film(one, point) for one, point in zip(values, points, strict=True)]


def answers(shown: Sequence[Film], seed: int, *, ill: float = 0.6, refused: int = 0) -> list[Answer]:
    """Answers for films, of which a share is of ill people; the first ones are refused."""
    generator = np.random.default_rng(seed)
    found = []
    for number, one in enumerate(shown):
        if number < refused:
            found.append(Answer(None, Refusal("turned", "it looks turned"), one))
            continue
        logit = generator.normal(2.0 if generator.random() < ill else -2.0)
        probability = float(1 / (1 + np.exp(-logit)))
        label = PNEUMONIA if probability >= THRESHOLD else NORMAL
        found.append(Answer(Prediction(probability, label, THRESHOLD, probability), None, one))
    return found


def reference(shown: list[Film], facts: dict[str, Any] | None = None) -> Reference:
    """Films as a reference keeps them; its check is of no matter here."""
    nothing = np.zeros((0, 0), dtype=np.float32)
    return Reference(
        dataset_kind="patients", mean=nothing, directions=nothing, variances=nothing, noise=1.0, scales=nothing,
        pose_weights=nothing, pose_biases=nothing, max_coloured=0.02,
        films=np.array([list(one.statistics.values()) for one in shown], dtype=np.float32),
        embeddings=np.stack([one.embedding for one in shown]), facts=COUNTED if facts is None else facts,
    )  # fmt: skip


def pictures(count: int) -> list[Picture]:
    return [Picture(np.full((30, 40), number % 256, dtype=np.uint8)) for number in range(count)]


def write_log(
    folder: Path, given: Sequence[Answer], who: Served | None = None, *, days: int = 1, last: datetime = NOON,
    pixels: bool = False,
) -> Path:  # fmt: skip
    """Log answers over some days, the last of which is given."""
    clock = Clock()
    log = PredictionLog(folder, pixels=pixels, clock=clock)
    shown = pictures(len(given))
    for day in range(days):
        clock.now = last - timedelta(days=days - 1 - day)
        log.append(who or served(), given[day::days], shown[day::days])
    return folder

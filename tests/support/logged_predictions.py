"""Predictions to log: images with chosen statistics, probabilities near their classes, and a clock that is set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.images.strict_decoding import DecodedImage
from cxr.inference.checked_prediction import PredictionResult
from cxr.inference.predictor import EnsemblePredictor, Prediction
from cxr.inference.reference.features import DESCRIPTOR_LENGTH, STATISTICS
from cxr.inference.reference.reference import EMBEDDING_SIZE, ImageFeatures, Reference
from cxr.inference.reference.refusals import Refusal
from cxr.models.metadata import ModelMetadata
from cxr.serving.prediction_log import PredictionLog
from cxr.serving.served_model import ServedModel
from support.model_folders import make_metadata

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ALL_TIME = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC))
THRESHOLD = 0.5
REFERENCE_FACTS = {"test": {"films": 300, "refused": 3}}
"""Facts of a reference: how many of the test images it refused."""


@dataclass
class Clock:
    """Returns the time that it is set to."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


def make_served_model(
    version: str = "3", alias: str = "champion", metadata: ModelMetadata | None = None
) -> ServedModel:
    """A version with metadata and without a network: a log needs no more."""
    metadata = metadata or make_metadata().with_calibration(1.0, THRESHOLD, "by hand")
    return ServedModel(version, alias, EnsemblePredictor((), metadata))


def image_features(statistics: NDArray[np.float64], embedding: NDArray[np.float64]) -> ImageFeatures:
    values = dict(zip(STATISTICS, map(float, statistics), strict=True))
    return ImageFeatures(values, embedding.astype(np.float32), np.zeros(DESCRIPTOR_LENGTH, dtype=np.float32))


def make_features(count: int, seed: int, *, brighter: float = 0.0, moved: float = 0.0) -> list[ImageFeatures]:
    """Features of images of one scanner, or of another one that is brighter and positions patients differently."""
    generator = np.random.default_rng(seed)
    statistics = generator.normal(100, 20, (count, len(STATISTICS)))
    statistics[:, 0] += brighter
    embeddings = generator.normal(size=(count, EMBEDDING_SIZE))
    embeddings[:, :4] += moved
    return [image_features(*pair) for pair in zip(statistics, embeddings, strict=True)]


def make_results(
    features: Sequence[ImageFeatures], seed: int, *, ill: float = 0.6, refused: int = 0
) -> list[PredictionResult]:
    """Results for images, a share of which shows pneumonia; the first ones are refused."""
    generator = np.random.default_rng(seed)
    results = []
    for number, image in enumerate(features):
        if number < refused:
            results.append(PredictionResult(None, Refusal("turned", "it looks turned"), image))
            continue
        logit = generator.normal(2.0 if generator.random() < ill else -2.0)
        probability = float(1 / (1 + np.exp(-logit)))
        label = PNEUMONIA if probability >= THRESHOLD else NORMAL
        results.append(PredictionResult(Prediction(probability, label, THRESHOLD, probability), None, image))
    return results


def make_reference(features: list[ImageFeatures], facts: dict[str, Any] | None = None) -> Reference:
    """A reference with the features of training images, whose check of new images is not used."""
    empty = np.zeros((0, 0), dtype=np.float32)
    return Reference(
        dataset_kind="patients", mean=empty, directions=empty, variances=empty, noise=1.0, scales=empty,
        pose_weights=empty, pose_biases=empty, max_coloured=0.02,
        statistics=np.array([list(image.statistics.values()) for image in features], dtype=np.float32),
        embeddings=np.stack([image.embedding for image in features]),
        facts=REFERENCE_FACTS if facts is None else facts,
    )  # fmt: skip


def make_images(count: int) -> list[DecodedImage]:
    return [DecodedImage(np.full((30, 40), number % 256, dtype=np.uint8)) for number in range(count)]


def write_prediction_log(
    folder: Path,
    results: Sequence[PredictionResult],
    served: ServedModel | None = None,
    *,
    days: int = 1,
    last: datetime = NOON,
    pixels: bool = False,
    shadow: ServedModel | None = None,
    shadow_results: Sequence[PredictionResult | None] = (),
) -> Path:
    """Log results on several days, of which ``last`` is the last one; those of a shadow are for the same images."""
    clock = Clock()
    log = PredictionLog(folder, keep_images=pixels, clock=clock)
    images = make_images(len(results))
    for day in range(days):
        clock.now = last - timedelta(days=days - 1 - day)
        rows = log.append(served or make_served_model(), results[day::days], images[day::days])
        for row, shadow_result in zip(rows, shadow_results[day::days], strict=False):
            if shadow is not None and shadow_result is not None:
                log.append_shadow(row, shadow, shadow_result)
    return folder

"""Statistics of a model's training images: they decide which images get no prediction, and they show drift."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cxr.files import REFERENCE_FILE, read_arrays
from cxr.images.strict_decoding import DecodedImage
from cxr.inference.reference.features import STATISTICS, FloatArray, describe_image, measure_image
from cxr.inference.reference.poses import POSES
from cxr.models.stored_files import check_digest

EMBEDDING_SIZE = 24
"""Numbers in an embedding: the first components of the descriptor."""

MIN_UPRIGHT_PROBABILITY = 0.1
"""Probability of being upright above which an image counts as upright: a few training images leave room for doubt."""

_ARRAYS = {
    "mean": "mean",
    "directions": "directions",
    "variances": "variances",
    "noise": "noise",
    "scales": "scales",
    "pose_weights": "pose_weights",
    "pose_biases": "pose_biases",
    "max_coloured": "max_coloured",
    "films": "statistics",
    "embeddings": "embeddings",
}
"""Array in the file to the attribute of :class:`Reference` that it holds."""


@dataclass(frozen=True)
class ImageFeatures:
    """An image as numbers.

    Attributes:
        statistics: a value for each of :data:`cxr.inference.reference.features.STATISTICS`.
        embedding: ``(e,)`` float32, first components of the descriptor, each with about unit variance on training
            images.
        descriptor: ``(d,)`` float32, see :func:`cxr.inference.reference.features.describe_image`.
    """

    statistics: Mapping[str, float]
    embedding: FloatArray
    descriptor: FloatArray = field(repr=False)


@dataclass(frozen=True)
class Reference:
    """The descriptors of training images as a cloud of points, with its limits.

    An image is not a chest radiograph if its descriptor is farther from the cloud than nearly all training images:
    along the main directions of the cloud (Mahalanobis distance), or away from them (remainder). A logistic
    regression that was fitted on turned and inverted training images tells the pose.

    Attributes:
        dataset_kind: ``"phantom"`` or ``"patients"``.
        mean: ``(d,)`` float32, mean descriptor.
        directions: ``(k, d)`` float32, main directions, each of length 1.
        variances: ``(k,)`` float32, variance along each direction.
        noise: variance along every other direction.
        scales: ``(2,)`` float32: divided by these, the limit of Mahalanobis distance and remainder is 1.
        pose_weights: ``(poses, k)`` float32, for components of unit variance.
        pose_biases: ``(poses,)`` float32.
        max_coloured: largest share of coloured pixels of a radiograph, 0 to 1.
        statistics: ``(n, s)`` float32, statistics of a sample of training images, columns as
            :attr:`STATISTIC_NAMES`.
        embeddings: ``(n, e)`` float32, embeddings of the same images.
        facts: what was measured when it was fitted: data set, number of images, false alarms on validation and test.
    """

    STATISTIC_NAMES: ClassVar[tuple[str, ...]] = tuple(STATISTICS)

    dataset_kind: str
    mean: FloatArray
    directions: FloatArray
    variances: FloatArray
    noise: float
    scales: FloatArray
    pose_weights: FloatArray
    pose_biases: FloatArray
    max_coloured: float
    statistics: FloatArray
    embeddings: FloatArray
    facts: Mapping[str, Any] = field(default_factory=dict)

    def features(self, image: DecodedImage) -> ImageFeatures:
        """Compute the features of an image.

        Args:
            image: the image before any recipe.

        Returns:
            Its statistics, embedding and descriptor.
        """
        descriptor = describe_image(image.grey)
        return ImageFeatures(measure_image(image.grey), self.embed(descriptor[None])[0], descriptor)

    def embed(self, descriptors: FloatArray) -> FloatArray:
        """Compute embeddings: the first components of descriptors.

        Args:
            descriptors: ``(n, d)`` float32.

        Returns:
            ``(n, e)`` float32.
        """
        return self.components(descriptors)[:, :EMBEDDING_SIZE]

    def components(self, descriptors: FloatArray) -> FloatArray:
        """Project descriptors on the main directions, scaled to about unit variance on training images.

        Args:
            descriptors: ``(n, d)`` float32.

        Returns:
            ``(n, k)`` float32.
        """
        centred = descriptors - self.mean
        scaled: FloatArray = (centred @ self.directions.T / np.sqrt(self.variances + self.noise)).astype(np.float32)
        return scaled

    def distance(self, descriptors: FloatArray) -> NDArray[np.float64]:
        """Compute how far descriptors are from the training images.

        Args:
            descriptors: ``(n, d)`` float32.

        Returns:
            ``(n,)``, at least 0; above 1 is farther than nearly all training images.
        """
        return np.asarray((self.unscaled_distances(descriptors) / self.scales).max(axis=1), dtype=np.float64)

    def unscaled_distances(self, descriptors: FloatArray) -> NDArray[np.float64]:
        """Compute the distance along the main directions, and the remainder, before they are divided by the scales.

        Args:
            descriptors: ``(n, d)`` float32.

        Returns:
            ``(n, 2)``: mean squared component, squared remainder.
        """
        centred = (descriptors - self.mean).astype(np.float64)
        projected = centred @ self.directions.T
        mahalanobis = (projected**2 / (self.variances + self.noise)).mean(axis=1)
        remainder = (centred**2).sum(axis=1) - (projected**2).sum(axis=1)
        return np.stack([mahalanobis, np.maximum(remainder, 0)], axis=1)

    def classify_pose(self, descriptor: FloatArray) -> str:
        """Tell how a radiograph is shown.

        Args:
            descriptor: ``(d,)`` float32.

        Returns:
            Key of :data:`POSES`.
        """
        logits = (self.pose_weights @ self.components(descriptor[None])[0] + self.pose_biases).astype(np.float64)
        exponentials = np.exp(logits - logits.max())
        upright_probability = exponentials[0] / exponentials.sum()
        return "upright" if upright_probability > MIN_UPRIGHT_PROBABILITY else tuple(POSES)[int(logits.argmax())]

    def save(self, folder: Path) -> Path:
        """Write ``reference.npz``: arrays and text, nothing that is executed when it is read.

        Args:
            folder: an existing folder.

        Returns:
            The file.
        """
        arrays: dict[str, Any] = {name: np.asarray(getattr(self, attribute)) for name, attribute in _ARRAYS.items()}
        text = json.dumps({"dataset_kind": self.dataset_kind, "facts": dict(self.facts)})
        path = folder / REFERENCE_FILE
        with path.open("wb") as file:
            np.savez_compressed(file, text=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)
        return path

    @classmethod
    def load(cls, folder: Path) -> Reference | None:
        """Read ``reference.npz``.

        Args:
            folder: folder of a model, or of the step ``reference``.

        Returns:
            The reference; None if there is no file, as in versions that are older than references.

        Raises:
            DataError: if the file is damaged.
        """
        path = folder / REFERENCE_FILE
        if not path.is_file():
            return None
        check_digest(path)
        arrays: dict[str, Any] = read_arrays(path, ("text", *_ARRAYS), "run `cxr reference` again")
        text = json.loads(arrays.pop("text").tobytes().decode())
        arrays |= {name: float(arrays[name]) for name in ("noise", "max_coloured")}
        values = {attribute: arrays[name] for name, attribute in _ARRAYS.items()}
        return cls(dataset_kind=str(text["dataset_kind"]), facts=text["facts"], **values)

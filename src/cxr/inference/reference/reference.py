"""What the films look like that a model was trained on: to know what is no such film, and to see drift."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cxr.files import REFERENCE_FILE, read_arrays
from cxr.images.decoding import Picture
from cxr.inference.reference.features import STATISTICS, Vector, outline, statistics

EMBEDDED = 24
"""Numbers of an embedding: the first components of the outline."""

UNSURE = 0.1
"""Probability of being upright above which a film is taken as upright: few training films leave room for doubt."""

POSES: Mapping[str, str] = {
    "upright": "as it should be",
    "turned_left": "turned by 90 degrees to the left",
    "turned_right": "turned by 90 degrees to the right",
    "upside_down": "upside down",
    "inverted": "inverted: bone is dark and air is bright",
}
"""Ways in which a film can be shown, each with words for people."""


@dataclass(frozen=True)
class Film:
    """A picture in a few numbers.

    Attributes:
        statistics: a value for each of :data:`STATISTICS`.
        embedding: ``(k,)`` float32, the outline's first components; each has about unit variance on training films.
        outline: ``(OUTLINE,)`` float32, see :func:`cxr.inference.reference.features.outline`.
    """

    statistics: Mapping[str, float]
    embedding: Vector
    outline: Vector = field(repr=False)


@dataclass(frozen=True)
class Refusal:
    """Why a picture gets no answer.

    Attributes:
        kind: ``"coloured"``, ``"inverted"``, ``"turned"`` or ``"no_chest_film"``.
        detail: a sentence for people: what it looks like, and what to do.
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Reference:
    """Training films as a cloud of points, with its limits.

    A picture is no chest film if its outline lies farther from the cloud than all but a few training films:
    along the cloud's main directions (Mahalanobis distance), or away from them (what is left over). How the film
    is shown is told by a logistic regression that has seen the training films turned and inverted.

    Attributes:
        dataset_kind: ``"phantom"`` or ``"patients"``.
        mean: ``(d,)`` float32, mean outline.
        directions: ``(k, d)`` float32, main directions, each of length 1.
        variances: ``(k,)`` float32 along them.
        noise: variance along each other direction.
        scales: ``(2,)`` float32: the limit is at 1 after dividing Mahalanobis distance and remainder by these.
        pose_weights: ``(poses, k)`` float32, for components of unit variance.
        pose_biases: ``(poses,)`` float32.
        max_coloured: largest share of coloured pixels of a film, 0 to 1.
        films: ``(n, s)`` float32, statistics of a sample of training films, columns as :data:`STATISTICS`.
        embeddings: ``(n, e)`` float32, embeddings of the same films.
        facts: what was measured when it was fitted: films, false alarms on validation and test, detection.
    """

    STATISTICS: ClassVar[tuple[str, ...]] = tuple(STATISTICS)

    dataset_kind: str
    mean: Vector
    directions: Vector
    variances: Vector
    noise: float
    scales: Vector
    pose_weights: Vector
    pose_biases: Vector
    max_coloured: float
    films: Vector
    embeddings: Vector
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def statistics(self) -> Vector:
        """``(n, s)`` float32: statistics of a sample of training films, columns :attr:`STATISTICS`."""
        return self.films

    def film(self, picture: Picture) -> Film:
        """Describe a picture.

        Args:
            picture: as it came.

        Returns:
            Its statistics, embedding and outline.
        """
        shape = outline(picture.grey)
        return Film(statistics(picture.grey), self.embed(shape[None])[0], shape)

    def embed(self, outlines: Vector) -> Vector:
        """Embeddings of outlines: their first components.

        Args:
            outlines: ``(n, d)`` float32.

        Returns:
            ``(n, e)`` float32.
        """
        return self.components(outlines)[:, :EMBEDDED]

    def refusal(self, picture: Picture, film: Film) -> Refusal | None:
        """Tell whether a picture is no film of the kind that the model knows.

        Args:
            picture: as it came.
            film: what :meth:`film` gave for it.

        Returns:
            Why it gets no answer; None if it is such a film.
        """
        if picture.coloured > self.max_coloured:
            return Refusal(
                "coloured",
                f"{picture.coloured:.0%} of its pixels are coloured, and a radiograph is grey; "
                "give the film itself, not a photograph or a report with colours",
            )
        pose = self.pose(film.outline)
        far = self.distance(film.outline[None])[0] > 1
        if pose != "upright" and (not far or self._known_as(picture.grey, pose)):
            kind = "inverted" if pose == "inverted" else "turned"
            what = "invert" if kind == "inverted" else "turn"
            return Refusal(kind, f"it looks like a chest film {POSES[pose]}; {what} it and ask again")
        if far:
            known = "drawn chest films (phantoms)" if self.dataset_kind == "phantom" else "frontal chest films"
            return Refusal(
                "no_chest_film",
                f"it does not look like the {known} that the model was trained on; "
                "give one frontal chest radiograph, upright and without a frame around it",
            )
        return None

    def distance(self, outlines: Vector) -> NDArray[np.float64]:
        """How far outlines lie from the training films.

        Args:
            outlines: ``(n, d)`` float32.

        Returns:
            ``(n,)``, at least 0; above 1 is farther than nearly all training films.
        """
        return np.asarray((self.distances(outlines) / self.scales).max(axis=1), dtype=np.float64)

    def distances(self, outlines: Vector) -> NDArray[np.float64]:
        """Distance inside the main directions and what is left over, not yet scaled.

        Args:
            outlines: ``(n, d)`` float32.

        Returns:
            ``(n, 2)``: mean squared component, squared remainder.
        """
        away = (outlines - self.mean).astype(np.float64)
        inside = away @ self.directions.T
        mahalanobis = (inside**2 / (self.variances + self.noise)).mean(axis=1)
        remainder = (away**2).sum(axis=1) - (inside**2).sum(axis=1)
        return np.stack([mahalanobis, np.maximum(remainder, 0)], axis=1)

    def pose(self, shape: Vector) -> str:
        """Tell how a film is shown.

        Args:
            shape: its outline, ``(d,)`` float32.

        Returns:
            Key of :data:`POSES`.
        """
        scores = (self.pose_weights @ self.components(shape[None])[0] + self.pose_biases).astype(np.float64)
        shares = np.exp(scores - scores.max())
        upright = shares[0] / shares.sum()
        return "upright" if upright > UNSURE else tuple(POSES)[int(scores.argmax())]

    def save(self, folder: Path) -> Path:
        """Write ``reference.npz``: arrays and text, nothing that is executed when it is read.

        Args:
            folder: an existing folder.

        Returns:
            The file.
        """
        arrays: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in _ARRAYS}
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
            The reference; None if there is none, as in versions made before there were any.

        Raises:
            DataError: if the file is damaged.
        """
        path = folder / REFERENCE_FILE
        if not path.is_file():
            return None
        arrays: dict[str, Any] = read_arrays(path, ("text", *_ARRAYS), "run `cxr reference` again")
        text = json.loads(arrays.pop("text").tobytes().decode())
        arrays |= {name: float(arrays[name]) for name in ("noise", "max_coloured")}
        return cls(dataset_kind=str(text["dataset_kind"]), facts=text["facts"], **arrays)

    def components(self, outlines: Vector) -> Vector:
        """Place outlines along the main directions, each with about unit variance on training films.

        Args:
            outlines: ``(n, d)`` float32.

        Returns:
            ``(n, k)`` float32.
        """
        found: Vector = ((outlines - self.mean) @ self.directions.T / np.sqrt(self.variances + self.noise)).astype(
            np.float32
        )
        return found

    def _known_as(self, grey: NDArray[np.uint8], pose: str) -> bool:
        """Whether the picture is a film after the pose is undone."""
        return bool(self.distance(outline(posed(grey, UNDONE_BY[pose]))[None])[0] <= 1)


_ARRAYS = (
    "mean", "directions", "variances", "noise", "scales", "pose_weights", "pose_biases", "max_coloured", "films",
    "embeddings",
)  # fmt: skip

UNDONE_BY: Mapping[str, str] = {
    "upright": "upright",
    "turned_left": "turned_right",
    "turned_right": "turned_left",
    "upside_down": "upside_down",
    "inverted": "inverted",
}


def posed(grey: NDArray[np.uint8], pose: str) -> NDArray[np.uint8]:
    """Show a film in another way.

    Args:
        grey: ``(height, width)`` uint8, upright.
        pose: key of :data:`POSES`.

    Returns:
        The film in that pose, uint8.
    """
    if pose == "inverted":
        return np.asarray(255 - grey, dtype=np.uint8)
    quarters = {"upright": 0, "turned_left": 1, "upside_down": 2, "turned_right": 3}[pose]
    return np.ascontiguousarray(np.rot90(grey, quarters))

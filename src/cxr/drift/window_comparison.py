"""The result of comparing a window of predictions with training: one test per quantity, and the overall outcome."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cxr.data.statistics import SampleDifference

Outcome = Literal["no drift", "drift", "too few to tell"]
IMAGES, PREDICTIONS, REFUSALS = "films", "answers", "refusals"
"""Groups of tests, with the names that drift.json uses."""
EMBEDDING, PROBABILITY = "embedding", "probability"
PNEUMONIA_SHARE, REFUSED_SHARE = "share of pneumonia", "share refused"
"""Names of the tests that are not about a statistic of images."""
NAN = float("nan")


@dataclass(frozen=True)
class WindowLimits:
    """How far a window may move before it counts as drift.

    Attributes:
        distance: largest Kolmogorov-Smirnov distance, 0..1.
        shares: largest change of the share of pneumonia, 0..1.
        significance: corrected p-value at and above which chance explains a difference.
        embedding: largest energy distance of the embeddings, 0..1.
        refusals: how far the share of refused images may exceed the false alarm rate measured at training, 0..1.
        films: smallest number of images that are compared.
    """

    distance: float
    shares: float
    significance: float
    embedding: float
    refusals: float
    films: int


@dataclass(frozen=True)
class DriftTest:
    """One quantity of a window, tested against training or validation.

    Attributes:
        group: :data:`IMAGES`, :data:`PREDICTIONS` or :data:`REFUSALS`.
        name: a statistic of images, or one of the names of this module.
        reference_value: median or share at training or validation; NaN for embeddings.
        window_value: median or share in the window; NaN for embeddings.
        rows: number of rows of the window that were compared.
        difference: distance and p-value.
        limit: largest distance that is allowed.
        corrected_p_value: p-value after the correction for all tests.
        drifted: whether this is drift.
        change: 95 % interval of the change of a share; NaN for other quantities.
    """

    group: str
    name: str
    reference_value: float
    window_value: float
    rows: int
    difference: SampleDifference
    limit: float
    corrected_p_value: float = NAN
    drifted: bool = False
    change: tuple[float, float] = (NAN, NAN)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "group": self.group,
            "name": self.name,
            "before": self.reference_value,
            "now": self.window_value,
            "rows": self.rows,
            "limit": self.limit,
            "corrected": self.corrected_p_value,
            "drifted": self.drifted,
            "change": self.change,
            **asdict(self.difference),
        }


@dataclass(frozen=True)
class WindowComparison:
    """The comparison of a window with training and validation.

    Attributes:
        tests: one per quantity that could be compared.
        notes: sentences about quantities that could not be compared.
        rows: number of rows of the window, refused images included.
        version_rows: number of those rows that belong to this version.
        refused: number of images that this version refused.
        limits: the limits of the tests.
        estimated_pneumonia: share of images with pneumonia if the version is as sensitive and specific as on
            validation (Rogan and Gladen, 1978), 0..1; NaN if unknown.
    """

    tests: tuple[DriftTest, ...]
    notes: tuple[str, ...]
    rows: int
    version_rows: int
    refused: int
    limits: WindowLimits
    estimated_pneumonia: float = NAN

    @property
    def drifted(self) -> tuple[DriftTest, ...]:
        """Tests that show drift, the smallest p-value first."""
        return tuple(sorted((test for test in self.tests if test.drifted), key=lambda test: test.corrected_p_value))

    @property
    def outcome(self) -> Outcome:
        """The outcome of all tests together."""
        if self.drifted:
            return "drift"
        return "no drift" if any(test.group in (IMAGES, PREDICTIONS) for test in self.tests) else "too few to tell"

    def sentence(self) -> str:
        """Say the outcome in a sentence.

        Returns:
            For example ``"drift in contrast (distance 0.42) and 2 more, of 14 comparisons, 120 rows"``.
        """
        if self.outcome == "too few to tell":
            return (
                f"too few to tell: {self.version_rows} rows of this version, of which {self.refused} refused; "
                f"a comparison needs at least {self.limits.films} images"
            )
        amount = f"{len(self.tests)} comparisons, {self.rows} rows"
        if not self.drifted:
            return f"no drift in {amount}"
        first, *further = self.drifted
        more = f" and {len(further)} more" if further else ""
        return f"drift in {first.name} (distance {first.difference.distance:.2f}){more}, of {amount}"

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON; NaN if unknown."""
        return {
            "outcome": self.outcome,
            "sentence": self.sentence(),
            "rows": self.rows,
            "of_version": self.version_rows,
            "refused": self.refused,
            "estimated_pneumonia": self.estimated_pneumonia,
            "findings": [test.to_dict() for test in self.tests],
            "notes": list(self.notes),
            "limits": asdict(self.limits),
        }

    def metrics(self) -> dict[str, float]:
        """Return metrics for a tracking server.

        Returns:
            Name to finite value: ``drifted`` (0 or 1), ``rows``, ``refused``, distance and corrected p-value of each
            test, and the shares.
        """
        metrics = {"drifted": float(bool(self.drifted)), "rows": float(self.rows), "refused": float(self.refused)}
        for test in self.tests:
            name = test.name.replace(" ", "_")
            metrics[f"distance/{name}"] = test.difference.distance
            metrics[f"p_value/{name}"] = test.corrected_p_value
            if test.name in (PNEUMONIA_SHARE, REFUSED_SHARE):
                metrics[name] = test.window_value
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

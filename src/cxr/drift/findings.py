"""What a comparison of a window found: each difference with its limit, and the answer of all of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cxr.data.checks.drift import DriftLimits
from cxr.data.statistics import Difference

Outcome = Literal["no drift", "drift", "too few to tell"]
FILMS, ANSWERS, REFUSALS = "films", "answers", "refusals"
"""Groups of comparisons."""
EMBEDDING, PROBABILITY, PNEUMONIA_SHARE, REFUSED_SHARE = (
    "embedding", "probability", "share of pneumonia", "share refused",
)  # fmt: skip
"""Comparisons besides the statistics of films."""


@dataclass(frozen=True)
class WindowLimits(DriftLimits):
    """How far a window may move before it is called drift.

    Attributes:
        distance: largest Kolmogorov-Smirnov distance, 0..1.
        shares: largest change of the share of pneumonia, 0..1.
        significance: p-value, corrected for the number of tests, from which on chance explains a difference.
        embedding: largest energy distance of the embeddings, 0..1.
        refusals: how far the share of refused pictures may exceed the false alarm rate stated at training, 0..1.
        films: fewest films that are compared.
    """

    distance: float = 0.15
    shares: float = 0.1
    embedding: float = 0.1
    refusals: float = 0.05
    films: int = 50


@dataclass(frozen=True)
class Finding:
    """One comparison of a window with training or validation.

    Attributes:
        group: ``"films"``, ``"answers"`` or ``"refusals"``.
        name: a statistic of films, or what else was compared.
        before: median at training or validation, or share; NaN for embeddings.
        now: the same of the window.
        rows: rows of the window that were compared.
        difference: distance and p-value.
        limit: distance that is allowed.
        corrected: p-value after the correction for all comparisons.
        drifted: whether it is drift.
        change: 95 % interval of the change of a share; NaN for other comparisons.
    """

    group: str
    name: str
    before: float
    now: float
    rows: int
    difference: Difference
    limit: float
    corrected: float = float("nan")
    drifted: bool = False
    change: tuple[float, float] = (float("nan"), float("nan"))


@dataclass(frozen=True)
class WindowComparison:
    """What became of the comparison of a window.

    Attributes:
        findings: one per comparison that could be made.
        notes: sentences about comparisons that could not be made.
        rows: rows of the window, refused ones too.
        of_version: those that this version answered or refused.
        refused: those of them that it refused.
        limits: what was allowed.
        estimated_pneumonia: share of films with pneumonia if the version is as sensitive and specific as on
            validation (Rogan and Gladen, 1978), 0..1; NaN where unknown.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    rows: int
    of_version: int
    refused: int
    limits: WindowLimits
    estimated_pneumonia: float = float("nan")

    @property
    def drifted(self) -> tuple[Finding, ...]:
        """Comparisons that are drift, the most surprising one first."""
        return tuple(sorted((one for one in self.findings if one.drifted), key=lambda one: one.corrected))

    @property
    def outcome(self) -> Outcome:
        """The answer in two words, or four."""
        if self.drifted:
            return "drift"
        return "no drift" if any(one.group in (FILMS, ANSWERS) for one in self.findings) else "too few to tell"

    def sentence(self) -> str:
        """The answer in a sentence.

        Returns:
            For example ``"drift in contrast (distance 0.42) and 2 more, of 14 comparisons; 120 films"``.
        """
        if self.outcome == "too few to tell":
            return f"too few to tell: {self.of_version} rows of this version, of which {self.refused} refused; " + (
                f"at least {self.limits.films} films are compared"
            )
        films = f"{len(self.findings)} comparisons, {self.rows} rows"
        if not self.drifted:
            return f"no drift in {films}"
        first, *more = self.drifted
        others = f" and {len(more)} more" if more else ""
        return f"drift in {first.name} (distance {first.difference.distance:.2f}){others}, of {films}"

    def to_dict(self) -> dict[str, Any]:
        """Everything for programs.

        Returns:
            Plain values; NaN where unknown.
        """
        flat = [
            {**{k: v for k, v in asdict(one).items() if k != "difference"}, **asdict(one.difference)}
            for one in self.findings
        ]
        return {
            "outcome": self.outcome,
            "sentence": self.sentence(),
            "rows": self.rows,
            "of_version": self.of_version,
            "refused": self.refused,
            "estimated_pneumonia": self.estimated_pneumonia,
            "findings": flat,
            "notes": list(self.notes),
            "limits": asdict(self.limits),
        }

    def metrics(self) -> dict[str, float]:
        """Figures for a tracking server.

        Returns:
            Name to value: ``drifted`` (0 or 1), rows, and for each comparison its distance and corrected p-value.
        """
        found = {"drifted": float(bool(self.drifted)), "rows": float(self.rows), "refused": float(self.refused)}
        for one in self.findings:
            name = one.name.replace(" ", "_")
            found[f"distance/{name}"] = one.difference.distance
            found[f"p_value/{name}"] = one.corrected
            if one.name in (PNEUMONIA_SHARE, REFUSED_SHARE):
                found[name] = one.now
        return {name: value for name, value in found.items() if math.isfinite(value)}

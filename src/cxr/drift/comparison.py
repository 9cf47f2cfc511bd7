"""Whether the films that a model is asked about, and its answers, still look as they did at training and validation.

Each statistic of the films and the probability are compared by the Kolmogorov-Smirnov distance, embeddings by the
energy distance, shares by their difference. Among energy distance, maximum mean discrepancy and a classifier that
tells the samples apart, the three found shifted, turned and zoomed radiographs equally often in windows of 30 to 100
films; the energy distance is the one whose p-value is exact and that has no bandwidth or penalty to choose. Each
number of the embedding is divided by its standard deviation first, which found small shifts twice as often.

A difference is drift if it is beyond its limit and chance does not explain it, with p-values corrected for the number
of tests: then a window without drift is called drift in at most a share ``significance`` of all runs. Films count as
independent; many films of one patient in a small window can break that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxr.data.dataset import PNEUMONIA
from cxr.data.statistics import Difference, change_interval, energy, holm, kolmogorov_smirnov, shares
from cxr.drift.findings import (
    ANSWERS,
    EMBEDDING,
    FILMS,
    PNEUMONIA_SHARE,
    PROBABILITY,
    REFUSALS,
    REFUSED_SHARE,
    Finding,
    WindowComparison,
    WindowLimits,
)
from cxr.drift.rows import embeddings, of_version, statistic

if TYPE_CHECKING:
    from cxr.evaluation.validation_scores import ValidationScores
    from cxr.inference.reference.reference import Reference


@dataclass
class _Comparing:
    """Findings and notes as they come up."""

    limits: WindowLimits
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def enough(self, rows: int, what: str) -> bool:
        if rows < self.limits.films:
            self.notes.append(f"{what} not compared: {rows} rows, and at least {self.limits.films} are needed")
        return rows >= self.limits.films

    def corrected(self) -> tuple[Finding, ...]:
        p_values = holm([one.difference.p_value for one in self.findings])
        found = []
        for one, p_value in zip(self.findings, p_values, strict=True):
            drifted = Difference(one.difference.distance, p_value).beyond(one.limit, self.limits.significance)
            found.append(Finding(**{**vars(one), "corrected": p_value, "drifted": drifted}))
        return tuple(found)


def compare(
    rows: pd.DataFrame,
    version: tuple[str, str],
    reference: Reference | None,
    validation: ValidationScores | None,
    limits: WindowLimits | None = None,
    *,
    seed: int = 0,
) -> WindowComparison:
    """Compare a window of logged predictions with what their version was trained and validated on.

    Statistics of films do not depend on the version, and all rows count. Embeddings, answers and refusals do: only
    rows of this version count.

    Args:
        rows: as :func:`cxr.serving.prediction_log.read_log` gives them.
        version: number (empty for a model from a folder) and model's name.
        reference: films of its training; None where the version has none.
        validation: its answers on validation; None where the version has none.
        limits: what is allowed.
        seed: of the permutations.

    Returns:
        The comparison.
    """
    limits = limits or WindowLimits()
    state = _Comparing(limits)
    own = rows[of_version(rows, *version)]
    answered = own[own["probability"].notna()]
    estimate = float("nan")
    if reference is None:
        state.notes.append("films not compared: this version carries no films of its training; register it again")
    else:
        _films(state, rows[rows["refusal"].isna()], answered, reference, seed)
        _refusals(state, own, reference)
    if validation is None:
        state.notes.append("answers not compared: this version carries no scores of its validation; register it again")
    elif state.enough(len(answered), "answers"):
        estimate = _answers(state, answered, validation)
    if len(own) < len(rows):
        state.notes.append(f"{len(rows) - len(own)} rows are of other versions: only their statistics are compared")
    refused = int(own["refusal"].notna().sum())
    return WindowComparison(state.corrected(), tuple(state.notes), len(rows), len(own), refused, limits, estimate)


def _films(state: _Comparing, answered: pd.DataFrame, own: pd.DataFrame, reference: Reference, seed: int) -> None:
    limits = state.limits
    if not state.enough(len(answered), "films"):
        return
    for column, name in enumerate(reference.STATISTICS):
        old, new = reference.statistics[:, column].astype(np.float64), statistic(answered, name)
        found = kolmogorov_smirnov(old, new)
        known = int(np.isfinite(new).sum())
        if known:
            state.findings.append(
                Finding(FILMS, name, float(np.nanmedian(old)), float(np.nanmedian(new)), known, found, limits.distance)
            )
    points = embeddings(own, reference.embeddings.shape[1])
    if state.enough(len(points), EMBEDDING):
        spread = reference.embeddings.std(axis=0, dtype=np.float64)
        scale = np.where(spread > 0, spread, 1.0)
        found = energy(reference.embeddings / scale, points / scale, np.random.default_rng(seed))
        nothing = float("nan")
        state.findings.append(Finding(FILMS, EMBEDDING, nothing, nothing, len(points), found, limits.embedding))


def _answers(state: _Comparing, answered: pd.DataFrame, validation: ValidationScores) -> float:
    """Compare scores and shares; gives the estimated share of films with pneumonia."""
    limits, now = state.limits, answered["probability"].to_numpy(np.float64)
    found = kolmogorov_smirnov(validation.probability, now)
    medians = float(np.median(validation.probability)), float(np.median(now))
    state.findings.append(Finding(ANSWERS, PROBABILITY, *medians, len(now), found, limits.distance))
    threshold = float(answered["threshold"].iloc[-1])
    old = int((validation.probability >= threshold).sum()), len(validation.probability)
    new = int(answered["label"].eq(PNEUMONIA).sum()), len(answered)
    share = Finding(
        ANSWERS, PNEUMONIA_SHARE, old[0] / old[1], new[0] / new[1], new[1], shares(old, new), limits.shares,
        change=change_interval(old, new),
    )  # fmt: skip
    state.findings.append(share)
    gained = validation.sensitivity(threshold) + validation.specificity(threshold) - 1
    if not gained > 0:
        return float("nan")
    return float(np.clip((share.now + validation.specificity(threshold) - 1) / gained, 0, 1))


def _refusals(state: _Comparing, own: pd.DataFrame, reference: Reference) -> None:
    """Compare with the false alarms that were counted on films which the check had not seen: more are drift."""
    counted = [reference.facts[part] for part in ("validation", "test") if part in reference.facts]
    old = sum(int(one["refused"]) for one in counted), sum(int(one["films"]) for one in counted)
    new = int(own["refusal"].notna().sum()), len(own)
    if not old[1]:
        state.notes.append("refusals not compared: false alarms of this version were not counted")
    elif state.enough(len(own), REFUSALS):
        found, change = shares(old, new, more=True), change_interval(old, new)
        before, now = old[0] / old[1], new[0] / new[1]
        state.findings.append(
            Finding(REFUSALS, REFUSED_SHARE, before, now, len(own), found, state.limits.refusals, change=change)
        )

"""Drift detection: do the images that a model gets, and its predictions, still look as at training and validation?

Statistics of images and the probability are compared by the Kolmogorov-Smirnov distance, embeddings by the energy
distance, shares by their difference. Three tests for embeddings were tried on shifted, turned and zoomed radiographs,
in windows of 30 to 100 images: energy distance, maximum mean discrepancy, and a classifier that separates the samples.
They detected the changes equally often. The energy distance is the one with an exact p-value and without a bandwidth
or penalty to choose. Each component of the embedding is divided by its standard deviation first, which detected small
shifts twice as often.

A difference is drift if it exceeds its limit and chance does not explain it. The p-values are corrected for the number
of tests, so that a window without drift is called drift in at most a share ``significance`` of all runs. The tests
assume that images are independent; many images of one patient in a small window violate that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxr.data.statistics import (
    SampleDifference,
    compare_shares,
    energy_test,
    holm_correction,
    kolmogorov_smirnov_test,
    newcombe_interval,
)
from cxr.drift.window_comparison import (
    EMBEDDING,
    IMAGES,
    NAN,
    PNEUMONIA_SHARE,
    PREDICTIONS,
    PROBABILITY,
    REFUSALS,
    REFUSED_SHARE,
    DriftTest,
    WindowComparison,
    WindowLimits,
)
from cxr.drift.window_rows import embedding_scale, image_statistic, is_of_version, stack_embeddings

if TYPE_CHECKING:
    from cxr.evaluation.validation_scores import ValidationScores
    from cxr.inference.reference.reference import Reference


def detect_drift(
    rows: pd.DataFrame,
    version: tuple[str, str],
    reference: Reference | None,
    validation: ValidationScores | None,
    limits: WindowLimits,
    *,
    seed: int,
) -> WindowComparison:
    """Compare a window of logged predictions with what their version was trained and validated on.

    Statistics of images do not depend on the version, so all rows count. Embeddings, predictions and refusals depend
    on it, so only rows of this version count.

    Args:
        rows: what :func:`cxr.serving.prediction_log_reader.read_prediction_log` returns.
        version: number of the version (empty for a model from a folder) and name of the model.
        reference: statistics of its training images; None if the version has none.
        validation: its probabilities on validation; None if the version has none.
        limits: how far the window may move.
        seed: seed of the permutations.

    Returns:
        The comparison.
    """
    results = _TestResults(limits)
    version_rows = rows[is_of_version(rows, *version)]
    answered = version_rows[version_rows["probability"].notna()]
    estimated_pneumonia = NAN
    if reference is None:
        results.notes.append("images not compared: this version has no statistics of its training images; "
                             "register it again")  # fmt: skip
    else:
        accepted = rows[rows["refusal"].isna()]
        if results.has_enough(len(accepted), "images"):
            _test_images(results, accepted, reference)
            _test_embeddings(results, answered, reference, seed)
        _test_refusals(results, version_rows, reference)
    if validation is None:
        results.notes.append("predictions not compared: this version has no scores of its validation; "
                             "register it again")  # fmt: skip
    elif results.has_enough(len(answered), "predictions"):
        estimated_pneumonia = _test_predictions(results, answered, validation)
    if len(version_rows) < len(rows):
        results.notes.append(
            f"{len(rows) - len(version_rows)} rows are of other versions: only their statistics are compared"
        )
    refused = int(version_rows["refusal"].notna().sum())
    return WindowComparison(
        results.corrected(), tuple(results.notes), len(rows), len(version_rows), refused, limits, estimated_pneumonia
    )


@dataclass
class _TestResults:
    """Tests so far, and notes about those that could not be made."""

    limits: WindowLimits
    tests: list[DriftTest] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def has_enough(self, rows: int, subject: str) -> bool:
        if rows < self.limits.films:
            self.notes.append(f"{subject} not compared: {rows} rows, and at least {self.limits.films} are needed")
        return rows >= self.limits.films

    def corrected(self) -> tuple[DriftTest, ...]:
        p_values = holm_correction([test.difference.p_value for test in self.tests])
        tests = []
        for test, p_value in zip(self.tests, p_values, strict=True):
            drifted = SampleDifference(test.difference.distance, p_value).exceeds(test.limit, self.limits.significance)
            tests.append(replace(test, corrected_p_value=p_value, drifted=drifted))
        return tuple(tests)


def _test_images(results: _TestResults, rows: pd.DataFrame, reference: Reference) -> None:
    for column, name in enumerate(reference.STATISTIC_NAMES):
        training, window = reference.statistics[:, column].astype(np.float64), image_statistic(rows, name)
        known = int(np.isfinite(window).sum())
        if known:
            medians = float(np.nanmedian(training)), float(np.nanmedian(window))
            difference = kolmogorov_smirnov_test(training, window)
            results.tests.append(DriftTest(IMAGES, name, *medians, known, difference, results.limits.distance))


def _test_embeddings(results: _TestResults, rows: pd.DataFrame, reference: Reference, seed: int) -> None:
    window = stack_embeddings(rows, reference.embeddings.shape[1])
    if results.has_enough(len(window), EMBEDDING):
        scale = embedding_scale(reference.embeddings)
        difference = energy_test(reference.embeddings / scale, window / scale, np.random.default_rng(seed))
        results.tests.append(DriftTest(IMAGES, EMBEDDING, NAN, NAN, len(window), difference, results.limits.embedding))


def _test_predictions(results: _TestResults, answered: pd.DataFrame, validation: ValidationScores) -> float:
    """Test probabilities and shares.

    Returns:
        The estimated share of images with pneumonia (Rogan and Gladen, 1978).
    """
    limits, window = results.limits, answered["probability"].to_numpy(np.float64)
    medians = float(np.median(validation.probability)), float(np.median(window))
    difference = kolmogorov_smirnov_test(validation.probability, window)
    results.tests.append(DriftTest(PREDICTIONS, PROBABILITY, *medians, len(window), difference, limits.distance))
    threshold = float(answered["threshold"].iloc[-1])
    validation_counts = int((validation.probability >= threshold).sum()), len(validation.probability)
    # By the threshold and not by the label, which may be UNCERTAIN: validation is counted in the same way.
    window_counts = int(answered["probability"].ge(answered["threshold"]).sum()), len(answered)
    share = _share_test(PREDICTIONS, PNEUMONIA_SHARE, validation_counts, window_counts, limits.shares)
    results.tests.append(share)
    sensitivity, specificity = validation.sensitivity(threshold), validation.specificity(threshold)
    youden = sensitivity + specificity - 1
    if not youden > 0:
        return NAN
    return float(np.clip((share.window_value + specificity - 1) / youden, 0, 1))


def _test_refusals(results: _TestResults, rows: pd.DataFrame, reference: Reference) -> None:
    """Compare with the false alarms on images that the check had not seen at training. Only more refusals are drift."""
    parts = [reference.facts[name] for name in ("validation", "test") if name in reference.facts]
    reference_counts = sum(int(part["refused"]) for part in parts), sum(int(part["films"]) for part in parts)
    window_counts = int(rows["refusal"].notna().sum()), len(rows)
    if not reference_counts[1]:
        results.notes.append("refusals not compared: false alarms of this version were not counted")
    elif results.has_enough(len(rows), REFUSALS):
        limit = results.limits.refusals
        results.tests.append(_share_test(REFUSALS, REFUSED_SHARE, reference_counts, window_counts, limit, more=True))


def _share_test(
    group: str, name: str, reference: tuple[int, int], window: tuple[int, int], limit: float, *, more: bool = False
) -> DriftTest:
    """Compare two shares, each given as (count, total)."""
    difference = compare_shares(reference, window, increase_only=more)
    shares = reference[0] / reference[1], window[0] / window[1]
    change = newcombe_interval(reference, window)
    return DriftTest(group, name, *shares, window[1], difference, limit, change=change)

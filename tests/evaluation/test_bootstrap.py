"""The bootstrap draws patients, is reproducible, and counts the replicates that it skips."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from cxr.evaluation import bootstrap as bootstrap_module
from cxr.evaluation import metrics
from cxr.evaluation.bootstrap import ARRAYS, bootstrap, bootstrap_band, draw_weights


def test_images_of_a_patient_are_drawn_together() -> None:
    groups = ["a", "b", "a", "c", "b", "a"]
    weights = np.concatenate(list(draw_weights(groups, resamples=50, seed=0)))
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights.std() > 0


def test_the_same_seed_gives_the_same_draws_whatever_the_blocks() -> None:
    groups = np.arange(20)
    whole = np.concatenate(list(draw_weights(groups, resamples=30, seed=5)))
    blocks = list(draw_weights(groups, resamples=30, seed=5, max_bytes=7 * ARRAYS * 20 * 8))
    parts = np.concatenate(blocks)
    assert [len(block) for block in blocks] == [7, 7, 7, 7, 2]
    other_seed = np.concatenate(list(draw_weights(groups, resamples=30, seed=6)))
    assert (whole == parts).all()
    assert (whole != other_seed).any()


def test_the_intervals_do_not_depend_on_the_blocks(monkeypatch) -> None:
    generator = np.random.default_rng(4)
    target = np.arange(300) % 2
    probability = np.clip(generator.normal(0.4 + 0.2 * target, 0.2), 0, 1)

    def intervals() -> np.ndarray:
        result = bootstrap(
            lambda weights: metrics.compute_metrics(target, probability, 0.5, weights, bins=15),
            target, np.arange(300) // 2, resamples=100, seed=1,
        )  # fmt: skip
        band = bootstrap_band(
            lambda weights: metrics.roc_rates(target, probability, weights),
            target, np.arange(300) // 2, [0.1, 0.5], resamples=100, seed=1,
        )  # fmt: skip
        return np.concatenate([*([entry.value, entry.low, entry.high] for entry in result.intervals.values()), *band])

    whole = intervals()
    monkeypatch.setattr(bootstrap_module, "MAX_BLOCK_REPLICATES", 3)
    np.testing.assert_allclose(intervals(), whole, rtol=0, atol=1e-12)


def test_a_block_takes_no_more_memory_than_it_is_given() -> None:
    images = 20_000
    target = np.arange(images) % 2
    probability = np.random.default_rng(6).random(images)
    max_bytes = 30 * ARRAYS * images * 8
    blocks = draw_weights(np.arange(images), resamples=60, seed=0, max_bytes=max_bytes)
    tracemalloc.start()
    for weights in blocks:
        metrics.compute_metrics(target, probability, 0.5, weights, bins=15)
        metrics.roc_rates(target, probability, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(weights) == 30
    assert 0.5 * max_bytes < peak < max_bytes


def test_one_replicate_is_the_least() -> None:
    blocks = list(draw_weights(np.arange(10), resamples=3, seed=0, max_bytes=1))
    assert [block.shape for block in blocks] == [(1, 10)] * 3


def test_copies_of_patients_do_not_narrow_the_interval() -> None:
    generator = np.random.default_rng(0)
    target = np.arange(60) % 2
    probability = np.clip(generator.normal(0.4 + 0.2 * target, 0.2), 0, 1)

    def width(copies: int) -> float:
        labels, scores, patients = (np.tile(values, copies) for values in (target, probability, np.arange(60)))
        interval = bootstrap(
            lambda weights: {"auroc": metrics.auroc(labels, scores, weights)}, labels, patients, resamples=500, seed=0
        ).intervals["auroc"]
        return interval.high - interval.low

    assert width(4) == pytest.approx(width(1))


def test_the_interval_of_a_share_is_near_the_binomial_one() -> None:
    target = np.ones(400, dtype=int)
    target[0] = 0
    probability = np.where(np.arange(400) % 10 == 0, 0.1, 0.9)
    result = bootstrap(
        lambda weights: metrics.decision_metrics(metrics.confusion(target, probability, 0.5, weights)),
        target,
        np.arange(400),
        resamples=2000,
        seed=0,
    )
    interval = result.intervals["sensitivity"]
    half = 1.96 * np.sqrt(0.9 * 0.1 / 400)
    assert interval.value == pytest.approx(0.902, abs=0.002)
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.15)


def test_replicates_without_both_classes_are_skipped_and_counted() -> None:
    target, probability = [0, 1], [0.1, 0.8]
    result = bootstrap(
        lambda weights: {"auroc": metrics.auroc(target, probability, weights)},
        target,
        ["a", "b"],
        resamples=1000,
        seed=0,
    )
    # A quarter of the replicates holds the patient with pneumonia twice, a quarter the other one.
    assert 430 < result.skipped < 570
    assert result.intervals["auroc"].low == 1
    assert result.groups == 2


def test_one_class_alone_leaves_only_figures_of_both_classes_unknown() -> None:
    def statistic(weights: metrics.Floats) -> dict[str, metrics.Floats]:
        decision = metrics.decision_metrics(metrics.confusion([1, 1], [0.2, 0.3], 0.25, weights))
        return {"auroc": metrics.auroc([1, 1], [0.2, 0.3], weights), "sensitivity": decision["sensitivity"]}

    result = bootstrap(statistic, [1, 1], ["a", "b"], resamples=100, seed=0)
    interval = result.intervals["auroc"]
    assert np.isnan([interval.value, interval.low, interval.high, result.p_values["auroc"]]).all()
    assert result.intervals["sensitivity"].to_dict() == {"value": 0.5, "low": 0.0, "high": 1.0}
    assert result.skipped == 0, "no replicate lacks a class that the images have"


def test_the_band_encloses_the_curve() -> None:
    generator = np.random.default_rng(1)
    target = np.arange(200) % 2
    probability = np.clip(generator.normal(0.4 + 0.2 * target, 0.2), 0, 1)
    grid = np.linspace(0, 1, 21)
    low, high = bootstrap_band(
        lambda weights: metrics.roc_rates(target, probability, weights),
        target,
        np.arange(200),
        grid,
        resamples=300,
        seed=0,
    )
    curve = np.interp(grid, *metrics.roc_rates(target, probability))
    assert (low <= curve + 1e-9).all()
    assert (curve <= high + 1e-9).all()
    assert (np.diff(low) >= -1e-9).all()
    assert (high - low).max() > 0.05


def test_the_p_value_belongs_to_the_interval() -> None:
    generator = np.random.default_rng(2)
    noise = generator.standard_normal(400)
    error = noise.std() / np.sqrt(400)
    target = np.arange(400) % 2
    p_values = {}
    for errors_off in (0.0, 1.96, 4.0):
        values = noise - noise.mean() + errors_off * error

        def mean(weights: np.ndarray, values: np.ndarray = values) -> dict[str, np.ndarray]:
            return {"difference": weights @ values / weights.sum(axis=-1)}

        p_values[errors_off] = bootstrap(mean, target, np.arange(400), resamples=4000, seed=0).p_values["difference"]
    assert p_values[0.0] > 0.9
    assert p_values[1.96] == pytest.approx(0.05, abs=0.02)
    assert 0 < p_values[4.0] < 0.002

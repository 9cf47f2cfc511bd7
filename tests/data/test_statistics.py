"""Comparisons of two samples: how far apart they are, and whether chance explains it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cxr.data.statistics import (
    MAX_ROWS,
    SampleDifference,
    compare_shares,
    energy_test,
    holm_correction,
    kolmogorov_smirnov_test,
    newcombe_interval,
    share_interval,
)


def cloud(rows: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 6)) + shift


def test_distances_are_0_for_the_same_and_1_for_samples_apart() -> None:
    same = np.arange(40.0)
    assert kolmogorov_smirnov_test(same, same).distance == 0
    assert kolmogorov_smirnov_test(same, same + 100) == SampleDifference(1.0, pytest.approx(0, abs=1e-12))
    generator = np.random.default_rng(0)
    assert energy_test(cloud(100, 1), cloud(100, 2), generator).distance < 0.1
    assert energy_test(cloud(100, 1), cloud(100, 2, 1000.0), generator).distance == pytest.approx(1, abs=0.01)


def test_unknown_values_are_left_out_and_an_empty_sample_never_differs() -> None:
    known, partly_known = np.arange(30.0), np.array([*np.arange(30.0), math.nan])
    assert kolmogorov_smirnov_test(known, partly_known) == SampleDifference(0.0, 1.0)
    unknown = kolmogorov_smirnov_test(known, np.full(3, math.nan))
    assert math.isnan(unknown.distance) and not unknown.exceeds(0.1, 0.05)
    assert not energy_test(cloud(30, 1), cloud(1, 2), np.random.default_rng(0)).exceeds(0.1, 0.05)


def test_a_difference_counts_only_if_it_is_large_and_not_by_chance() -> None:
    assert SampleDifference(0.2, 0.001).exceeds(0.1, 0.01)
    assert not SampleDifference(0.05, 1e-9).exceeds(0.1, 0.01), "certain, but too small"
    assert not SampleDifference(0.4, 0.2).exceeds(0.1, 0.01), "large, but by chance"


def test_p_values_of_equal_populations_are_spread_evenly() -> None:
    p_values = [
        energy_test(cloud(40, seed), cloud(20, 1000 + seed), np.random.default_rng(seed)).p_value for seed in range(150)
    ]
    assert abs(np.mean(np.array(p_values) < 0.1) - 0.1) < 0.06
    assert abs(np.mean(np.array(p_values) < 0.5) - 0.5) < 0.1


def test_a_shift_of_points_is_found_whichever_sample_is_larger() -> None:
    for reference_rows, current_rows in ((300, 40), (40, 300)):
        difference = energy_test(cloud(reference_rows, 1), cloud(current_rows, 2, 0.5), np.random.default_rng(0))
        assert difference.p_value < 0.001 and difference.distance > 0.1


def test_the_distance_does_not_grow_because_a_window_is_small() -> None:
    small = [
        energy_test(cloud(200, s), cloud(15, 500 + s, 0.5), np.random.default_rng(s), 9).distance for s in range(30)
    ]
    large = energy_test(cloud(400, 1), cloud(400, 2, 0.5), np.random.default_rng(0), 9).distance
    assert np.median(small) == pytest.approx(large, abs=0.05)


def test_large_samples_are_subsampled_and_the_outcome_follows_the_seed() -> None:
    reference, current = cloud(3 * MAX_ROWS, 1), cloud(3 * MAX_ROWS, 2, 0.2)
    first = energy_test(reference, current, np.random.default_rng(5), 99)
    assert first == energy_test(reference, current, np.random.default_rng(5), 99)
    assert first != energy_test(reference, current, np.random.default_rng(6), 99)


def test_holm_corrects_for_the_tests_that_were_made() -> None:
    assert holm_correction([0.01, 0.04, math.nan, 0.03])[:2] == pytest.approx([0.03, 0.06])
    assert holm_correction([0.01, 0.04, math.nan, 0.03])[3] == pytest.approx(0.06), "never below a smaller one"
    assert holm_correction([0.7, 0.8]) == [1.0, 1.0]
    assert holm_correction([]) == []


def test_intervals_of_shares_are_the_published_ones() -> None:
    assert newcombe_interval((48, 80), (56, 70)) == pytest.approx((0.0524, 0.3339), abs=5e-5), "Newcombe 1998, table II"
    assert share_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5), "Newcombe 1998, Wilson"
    assert all(math.isnan(end) for end in newcombe_interval((0, 0), (1, 2)))


def test_shares_are_compared_exactly() -> None:
    difference = compare_shares((8, 10), (1, 6))
    assert difference.distance == pytest.approx(0.8 - 1 / 6)
    assert difference.p_value == pytest.approx(0.0350, abs=5e-4), (
        "the example in SciPy's documentation of Fisher's test"
    )
    assert math.isnan(compare_shares((0, 0), (1, 2)).p_value)


def test_a_smaller_share_is_not_a_difference_where_only_an_increase_counts() -> None:
    assert compare_shares((30, 100), (2, 100), increase_only=True).distance == 0
    assert not compare_shares((30, 100), (2, 100), increase_only=True).exceeds(0.05, 0.01)
    assert compare_shares((2, 100), (30, 100), increase_only=True).exceeds(0.05, 0.01)

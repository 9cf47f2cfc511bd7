"""Two samples: how far apart they are, and whether chance explains it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cxr.data.statistics import (
    LARGEST,
    Difference,
    change_interval,
    energy,
    holm,
    kolmogorov_smirnov,
    share_interval,
    shares,
)


def cloud(rows: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 6)) + shift


def test_distances_are_0_for_the_same_and_1_for_samples_apart() -> None:
    same = np.arange(40.0)
    assert kolmogorov_smirnov(same, same).distance == 0
    assert kolmogorov_smirnov(same, same + 100) == Difference(1.0, pytest.approx(0, abs=1e-12))
    generator = np.random.default_rng(0)
    assert energy(cloud(100, 1), cloud(100, 2), generator).distance < 0.1
    assert energy(cloud(100, 1), cloud(100, 2, 1000.0), generator).distance == pytest.approx(1, abs=0.01)


def test_unknown_values_are_left_out_and_an_empty_sample_is_no_difference() -> None:
    known, some = np.arange(30.0), np.array([*np.arange(30.0), math.nan])
    assert kolmogorov_smirnov(known, some) == Difference(0.0, 1.0)
    nothing = kolmogorov_smirnov(known, np.full(3, math.nan))
    assert math.isnan(nothing.distance) and not nothing.beyond(0.1, 0.05)
    assert not energy(cloud(30, 1), cloud(1, 2), np.random.default_rng(0)).beyond(0.1, 0.05)


def test_a_difference_counts_only_if_it_is_large_and_no_chance() -> None:
    assert Difference(0.2, 0.001).beyond(0.1, 0.01)
    assert not Difference(0.05, 1e-9).beyond(0.1, 0.01), "certain, and of no matter"
    assert not Difference(0.4, 0.2).beyond(0.1, 0.01), "large, and by luck"


def test_p_values_of_equal_populations_are_spread_evenly() -> None:
    found = [
        energy(cloud(40, seed), cloud(20, 1000 + seed), np.random.default_rng(seed)).p_value for seed in range(150)
    ]
    assert abs(np.mean(np.array(found) < 0.1) - 0.1) < 0.06
    assert abs(np.mean(np.array(found) < 0.5) - 0.5) < 0.1


def test_a_shift_of_points_is_found_in_both_directions_and_for_either_size() -> None:
    for before, now in ((300, 40), (40, 300)):
        found = energy(cloud(before, 1), cloud(now, 2, 0.5), np.random.default_rng(0))
        assert found.p_value < 0.001 and found.distance > 0.1


def test_the_distance_does_not_grow_because_a_window_is_small() -> None:
    small = [energy(cloud(200, s), cloud(15, 500 + s, 0.5), np.random.default_rng(s), 9).distance for s in range(30)]
    large = energy(cloud(400, 1), cloud(400, 2, 0.5), np.random.default_rng(0), 9).distance
    assert np.median(small) == pytest.approx(large, abs=0.05)


def test_large_samples_are_thinned_and_the_outcome_is_that_of_the_seed() -> None:
    before, now = cloud(3 * LARGEST, 1), cloud(3 * LARGEST, 2, 0.2)
    first = energy(before, now, np.random.default_rng(5), 99)
    assert first == energy(before, now, np.random.default_rng(5), 99)
    assert first != energy(before, now, np.random.default_rng(6), 99)


def test_holm_corrects_for_the_tests_that_were_made() -> None:
    assert holm([0.01, 0.04, math.nan, 0.03])[:2] == pytest.approx([0.03, 0.06])
    assert holm([0.01, 0.04, math.nan, 0.03])[3] == pytest.approx(0.06), "never below a smaller one"
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_intervals_of_shares_are_the_published_ones() -> None:
    assert change_interval((48, 80), (56, 70)) == pytest.approx((0.0524, 0.3339), abs=5e-5), "Newcombe 1998, table II"
    assert share_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5), "Newcombe 1998, Wilson"
    assert all(math.isnan(end) for end in change_interval((0, 0), (1, 2)))


def test_shares_are_compared_exactly() -> None:
    found = shares((8, 10), (1, 6))
    assert found.distance == pytest.approx(0.8 - 1 / 6)
    assert found.p_value == pytest.approx(0.0350, abs=5e-4), "the example in SciPy's documentation of Fisher's test"
    assert math.isnan(shares((0, 0), (1, 2)).p_value)


def test_a_smaller_share_is_no_difference_where_only_more_counts() -> None:
    assert shares((30, 100), (2, 100), more=True).distance == 0
    assert not shares((30, 100), (2, 100), more=True).beyond(0.05, 0.01)
    assert shares((2, 100), (30, 100), more=True).beyond(0.05, 0.01)

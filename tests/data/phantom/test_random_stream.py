"""Random numbers of the drawing: the distributions, and the stream that NumPy promises."""

from __future__ import annotations

import numpy as np
import pytest

from cxr.data.phantom.random_stream import RandomStream


def test_the_stream_is_that_of_pcg64() -> None:
    """NumPy promises these integers for good (NEP 19)."""
    raw = np.random.PCG64([3, 1]).random_raw(4)
    stream = RandomStream(3, 1)
    assert [stream.uniform() for _ in range(4)] == [int(number) // 2**11 / 2**53 for number in raw]


def test_one_number_and_an_array_come_from_the_same_stream() -> None:
    whole, single = RandomStream(8), RandomStream(8)
    assert whole.uniform(2, 5, 3).tolist() == [single.uniform(2, 5) for _ in range(3)]
    assert whole.normal(2, 5, (2, 2)).ravel().tolist() == [single.normal(2, 5) for _ in range(4)]


def test_normal_numbers_have_the_mean_the_deviation_and_the_shape_of_the_curve() -> None:
    numbers = RandomStream(1).normal(3, 2, 200_000)
    assert numbers.mean() == pytest.approx(3, abs=0.02)
    assert numbers.std() == pytest.approx(2, abs=0.02)
    within_one = np.mean(np.abs(numbers - 3) < 2)
    assert within_one == pytest.approx(0.683, abs=0.01)
    assert np.abs(numbers - 3).max() < 10


def test_integers_and_choices_cover_their_range_evenly() -> None:
    stream = RandomStream(2)
    counts = np.bincount([stream.integer(-4, 5) + 4 for _ in range(9000)], minlength=9)
    assert len(counts) == 9 and counts.min() > 850 and counts.max() < 1150
    assert {stream.choice("abc") for _ in range(50)} == set("abc")


def test_another_seed_gives_other_numbers() -> None:
    assert RandomStream(1, 2).uniform() != RandomStream(1, 3).uniform()

"""Whether two samples come from one population: distances that say how far apart they are, and how likely by chance.

Each comparison gives both. A distance is an effect size: a limit on it means the same for 500 images as for 50,000,
where a p-value alone would call any difference a difference once there are enough images. The p-value keeps small
samples from differing by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.stats import fisher_exact, ks_2samp

Floats = NDArray[np.float64]

PERMUTATIONS = 4999
"""Most permutations of an energy test: they can show a p-value of 0.0002, which a correction for many tests needs."""
ENOUGH = 20
"""Permutations at least as far apart after which the rest would not change the outcome."""
LARGEST = 500
"""Most rows of a sample that an energy test looks at, drawn at random: its memory and time grow with the square."""
BLOCK = 128
"""Permutations that are computed at once."""


@dataclass(frozen=True)
class Difference:
    """How two samples differ.

    Attributes:
        distance: 0 (the same) to 1 (apart); NaN if a sample is empty.
        p_value: how likely chance alone gives at least this distance; NaN if a sample is empty.
    """

    distance: float = float("nan")
    p_value: float = float("nan")

    def beyond(self, limit: float, significance: float) -> bool:
        """Whether the samples differ by more than is allowed, and by more than chance explains.

        Args:
            limit: largest distance that is allowed, 0 to 1.
            significance: p-value from which on chance explains it.

        Returns:
            Whether both hold; False where either is unknown.
        """
        return bool(self.distance > limit and self.p_value < significance)


def kolmogorov_smirnov(before: Floats, now: Floats) -> Difference:
    """Compare a number of two samples: the largest gap between their cumulative distributions.

    Args:
        before: ``(n,)``, NaN left out.
        now: ``(m,)``, NaN left out.

    Returns:
        The Kolmogorov-Smirnov statistic and its p-value.
    """
    old, new = before[~np.isnan(before)], now[~np.isnan(now)]
    if not len(old) or not len(new):
        return Difference()
    found = ks_2samp(old, new)
    return Difference(float(found.statistic), float(found.pvalue))


def energy(
    before: Floats, now: Floats, generator: np.random.Generator, permutations: int = PERMUTATIONS
) -> Difference:  # fmt: skip
    """Compare points of two samples by their energy distance (Székely and Rizzo, 2004), with a permutation test.

    The distance is the root of ``1 - (E|x - x'| + E|y - y'|) / (2 E|x - y|)``, without the pairs of a point with
    itself, so that it is about 0 for equal populations whatever the samples' sizes. Permutations end early where
    the outcome is clear; the p-value stays valid (Besag and Clifford, 1991).

    Args:
        before: ``(n, k)``.
        now: ``(m, k)``.
        generator: draws the permutations, and rows of samples of more than :data:`LARGEST`.
        permutations: most of them; the smallest p-value is 1 in one more.

    Returns:
        The distance and its p-value; unknown if a sample has fewer than two rows.
    """
    if min(len(before), len(now)) < 2:
        return Difference()
    old, new = _at_most(before, LARGEST, generator), _at_most(now, LARGEST, generator)
    both = np.concatenate([new, old])
    gaps = cdist(both, both)
    n, m = len(old), len(new)
    of_each = gaps.sum(axis=0)

    def gap(chosen: Floats) -> tuple[Floats, Floats]:
        """Energy between the chosen rows and the others, and the mean distance across, for each column."""
        within = np.einsum("ij,ij->j", chosen, gaps @ chosen)
        across = of_each @ chosen - within
        mean = 2 * across / (n * m)
        outside = of_each.sum() - 2 * across - within
        return mean - within / (m * (m - 1)) - outside / (n * (n - 1)), mean

    chosen = (np.arange(n + m) < m).astype(np.float64)[:, None]
    found, mean = (float(one[0]) for one in gap(chosen))
    distance = float(np.sqrt(max(0.0, found / mean))) if mean > 0 else 0.0
    beaten, drawn = 0, 0
    while drawn < permutations:
        block = min(BLOCK, permutations - drawn)
        drawings = generator.permuted(np.repeat(chosen, block, axis=1), axis=0)
        # A tie is one whatever the order of additions.
        as_far = np.flatnonzero(gap(drawings)[0] >= found - 1e-12 * mean) + drawn + 1
        if beaten + len(as_far) >= ENOUGH:
            return Difference(distance, ENOUGH / float(as_far[ENOUGH - beaten - 1]))
        beaten, drawn = beaten + len(as_far), drawn + block
    return Difference(distance, (beaten + 1) / (permutations + 1))


def shares(before: tuple[int, int], now: tuple[int, int], *, more: bool = False) -> Difference:
    """Compare a share of two samples with Fisher's exact test.

    Args:
        before: how many have it, of how many.
        now: the same of the other sample.
        more: whether only a larger share is a difference.

    Returns:
        The difference of the shares, at least 0, and its p-value.
    """
    if not before[1] or not now[1]:
        return Difference()
    table = [[count, of - count] for count, of in (now, before)]
    change = now[0] / now[1] - before[0] / before[1]
    found = fisher_exact(table, alternative="greater" if more else "two-sided")
    return Difference(max(0.0, change) if more else abs(change), float(found.pvalue))


def share_interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Args:
        count: how many have it.
        of: of how many.

    Returns:
        Low and high, 0 to 1; NaN of none.
    """
    if not of:
        return float("nan"), float("nan")
    low, high = wilson(count / of, of)
    return float(low), float(high)


def change_interval(before: tuple[int, int], now: tuple[int, int]) -> tuple[float, float]:
    """Newcombe's 95 % interval of the change of a share (1998, method 10).

    Args:
        before: how many have it, of how many.
        now: the same of the other sample.

    Returns:
        Low and high, -1 to 1; NaN if a sample is empty.
    """
    if not before[1] or not now[1]:
        return float("nan"), float("nan")
    old, new = before[0] / before[1], now[0] / now[1]
    old_low, old_high = share_interval(*before)
    new_low, new_high = share_interval(*now)
    below, above = np.hypot(new - new_low, old_high - old), np.hypot(new_high - new, old - old_low)
    return float(new - old - below), float(new - old + above)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests (Holm, 1979): one below x is wrong in at most a share x of all runs.

    Args:
        p_values: one per test; NaN for a test that was not made, which does not count.

    Returns:
        The corrected ones, at most 1, in the same order.
    """
    values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(values), np.nan)
    made = np.flatnonzero(~np.isnan(values))
    order = made[np.argsort(values[made], kind="stable")]
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return [float(one) for one in corrected]


def _at_most(sample: Floats, rows: int, generator: np.random.Generator) -> Floats:
    if len(sample) <= rows:
        return sample
    return sample[np.sort(generator.choice(len(sample), rows, replace=False))]


def wilson(share: ArrayLike, images: ArrayLike) -> tuple[Floats, Floats]:
    """95 % interval of a share of few images (Wilson 1927).

    Args:
        share: any shape, in [0, 1].
        images: same shape, images that the share was counted on, at least 1.

    Returns:
        Lower and upper end, same shape, in [0, 1].
    """
    p, n, z = np.asarray(share, dtype=np.float64), np.asarray(images, dtype=np.float64), 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)

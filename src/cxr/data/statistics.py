"""Compares two samples: how far apart they are, and how likely chance alone makes them differ that much.

Each comparison gives a distance and a p-value. The distance is an effect size: a limit on it means the same for 500
images as for 50,000. A p-value alone would call every small difference significant once there are enough images. The
p-value makes sure that small samples do not count as different by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MAX_PERMUTATIONS = 4999
"""Largest number of permutations of an energy test: the smallest p-value is then 0.0002, which a correction for many
tests needs."""
STOP_COUNT = 20
"""Number of permutations with at least the observed distance after which more permutations would not change the
outcome."""
MAX_ROWS = 500
"""Largest number of rows of a sample in an energy test; more are sampled at random, because memory and time grow with
the square."""
PERMUTATION_BLOCK = 128
"""Permutations that are computed at once."""


@dataclass(frozen=True)
class SampleDifference:
    """How two samples differ.

    Attributes:
        distance: 0 (the same) to 1 (apart); NaN if a sample is empty.
        p_value: how likely chance alone gives at least this distance; NaN if a sample is empty.
    """

    distance: float = float("nan")
    p_value: float = float("nan")

    def exceeds(self, limit: float, significance: float) -> bool:
        """Tell whether the samples differ by more than the limit, and by more than chance explains.

        Args:
            limit: largest allowed distance, 0 to 1.
            significance: p-value from which on chance explains the distance.

        Returns:
            Whether both hold; False where either is unknown.
        """
        return bool(self.distance > limit and self.p_value < significance)


def kolmogorov_smirnov_test(reference: Floats, current: Floats) -> SampleDifference:
    """Compare the distribution of a number in two samples: the largest gap between their cumulative distributions.

    Args:
        reference: ``(n,)``; NaN is left out.
        current: ``(m,)``; NaN is left out.

    Returns:
        The Kolmogorov-Smirnov statistic and its p-value.
    """
    from scipy.stats import ks_2samp

    reference, current = reference[~np.isnan(reference)], current[~np.isnan(current)]
    if not len(reference) or not len(current):
        return SampleDifference()
    result = ks_2samp(reference, current)
    return SampleDifference(float(result.statistic), float(result.pvalue))


def energy_test(
    reference: Floats, current: Floats, generator: np.random.Generator, permutations: int = MAX_PERMUTATIONS
) -> SampleDifference:
    """Compare points of two samples by their energy distance (Székely and Rizzo, 2004), with a permutation test.

    The distance is the root of ``1 - (E|x - x'| + E|y - y'|) / (2 E|x - y|)``, without the pairs of a point with
    itself. It is therefore about 0 for equal populations, whatever the sizes of the samples. The permutations stop
    early where the outcome is clear; the p-value stays valid (Besag and Clifford, 1991).

    Args:
        reference: ``(n, k)``.
        current: ``(m, k)``.
        generator: draws the permutations, and the rows of samples of more than :data:`MAX_ROWS`.
        permutations: largest number of permutations; the smallest p-value is 1 / (permutations + 1).

    Returns:
        The distance and its p-value; unknown if a sample has fewer than two rows.
    """
    from scipy.spatial.distance import cdist

    if min(len(reference), len(current)) < 2:
        return SampleDifference()
    reference, current = (_sample_rows(sample, MAX_ROWS, generator) for sample in (reference, current))
    points = np.concatenate([current, reference])
    distances = cdist(points, points)
    n, m = len(reference), len(current)
    row_sums = distances.sum(axis=0)

    def energy_and_mean(is_current: Floats) -> tuple[Floats, Floats]:
        """Energy between the marked rows and the others, and the mean distance between them, for each column."""
        within_current = np.einsum("ij,ij->j", is_current, distances @ is_current)
        between = row_sums @ is_current - within_current
        mean = 2 * between / (n * m)
        within_reference = row_sums.sum() - 2 * between - within_current
        return mean - within_current / (m * (m - 1)) - within_reference / (n * (n - 1)), mean

    is_current = (np.arange(n + m) < m).astype(np.float64)[:, None]
    observed, mean = (float(values[0]) for values in energy_and_mean(is_current))
    distance = float(np.sqrt(max(0.0, observed / mean))) if mean > 0 else 0.0
    count, drawn = 0, 0
    while drawn < permutations:
        block = min(PERMUTATION_BLOCK, permutations - drawn)
        permuted = generator.permuted(np.repeat(is_current, block, axis=1), axis=0)
        # The tolerance makes equal energies equal, whatever the order of additions.
        as_far = np.flatnonzero(energy_and_mean(permuted)[0] >= observed - 1e-12 * mean) + drawn + 1
        if count + len(as_far) >= STOP_COUNT:
            return SampleDifference(distance, STOP_COUNT / float(as_far[STOP_COUNT - count - 1]))
        count, drawn = count + len(as_far), drawn + block
    return SampleDifference(distance, (count + 1) / (permutations + 1))


def compare_shares(
    reference: tuple[int, int], current: tuple[int, int], *, increase_only: bool = False
) -> SampleDifference:
    """Compare a share in two samples with Fisher's exact test.

    Args:
        reference: (count, total) of the first sample.
        current: (count, total) of the second sample.
        increase_only: whether only a larger share in the second sample is a difference.

    Returns:
        The difference of the shares, at least 0, and its p-value.
    """
    from scipy.stats import fisher_exact

    if not reference[1] or not current[1]:
        return SampleDifference()
    table = [[count, total - count] for count, total in (current, reference)]
    change = current[0] / current[1] - reference[0] / reference[1]
    result = fisher_exact(table, alternative="greater" if increase_only else "two-sided")
    return SampleDifference(max(0.0, change) if increase_only else abs(change), float(result.pvalue))


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a share.

    Args:
        count: number of items that have the property.
        total: number of all items.

    Returns:
        Low and high, 0 to 1; NaN if there are no items.
    """
    if not total:
        return float("nan"), float("nan")
    low, high = wilson_interval(count / total, total)
    return float(low), float(high)


def newcombe_interval(reference: tuple[int, int], current: tuple[int, int]) -> tuple[float, float]:
    """Compute Newcombe's 95 % interval of the change of a share (1998, method 10).

    Args:
        reference: (count, total) of the first sample.
        current: (count, total) of the second sample.

    Returns:
        Low and high, -1 to 1; NaN if a sample is empty.
    """
    if not reference[1] or not current[1]:
        return float("nan"), float("nan")
    old, new = reference[0] / reference[1], current[0] / current[1]
    old_low, old_high = share_interval(*reference)
    new_low, new_high = share_interval(*current)
    below, above = np.hypot(new - new_low, old_high - old), np.hypot(new_high - new, old - old_low)
    return float(new - old - below), float(new - old + above)


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests (Holm, 1979).

    Corrected values below x are wrong in at most a share x of all runs.

    Args:
        p_values: one per test; NaN for a test that was not made, which does not count.

    Returns:
        The corrected p-values, at most 1, in the same order.
    """
    values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return [float(p_value) for p_value in corrected]


def wilson_interval(share: ArrayLike, total: ArrayLike) -> tuple[Floats, Floats]:
    """Compute the 95 % interval of a share of few items (Wilson, 1927).

    Args:
        share: any shape, in [0, 1].
        total: same shape, number of items, at least 1.

    Returns:
        Lower and upper end, same shape, in [0, 1].
    """
    p, n, z = np.asarray(share, dtype=np.float64), np.asarray(total, dtype=np.float64), 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return np.clip(centre - half_width, 0, 1), np.clip(centre + half_width, 0, 1)


def _sample_rows(sample: Floats, rows: int, generator: np.random.Generator) -> Floats:
    if len(sample) <= rows:
        return sample
    return sample[np.sort(generator.choice(len(sample), rows, replace=False))]

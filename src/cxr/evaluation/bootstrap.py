"""Percentile bootstrap over patients: the images of one patient are not independent, so patients are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from cxr.evaluation.metrics import Floats

CONFIDENCE = 0.95
MAX_BLOCK_BYTES = 256 * 2**20
"""Memory of the replicates that are computed at once, in bytes. One replicate is the least, whatever it takes."""
MAX_BLOCK_REPLICATES = 250
"""Largest number of replicates that are computed at once: more would not be faster."""
ARRAYS = 10
"""Arrays of (replicates, images) float64 that the metrics of an evaluation have in memory at once, at most."""

Statistic = Callable[[Floats], Mapping[str, Floats]]
"""Weights (replicates, images) to values (replicates, ...), by name."""


@dataclass(frozen=True)
class Interval:
    """A measured value and its 95 % interval.

    Attributes:
        value: the metric on the images as they are.
        low: 2.5th percentile of the replicates.
        high: 97.5th percentile of the replicates.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Convert to plain values, for JSON.

        Returns:
            ``{"value": ..., "low": ..., "high": ...}``.
        """
        return asdict(self)


@dataclass(frozen=True)
class BootstrapResult:
    """Intervals of several metrics and how they were computed.

    Attributes:
        intervals: metric name to its interval.
        p_values: metric name to the two-sided probability of replicates on the other side of 0; meaningful for
            differences only. NaN if unknown.
        resamples: number of replicates drawn.
        skipped: number of replicates left out because they held one class only.
        groups: number of patient groups drawn from.
    """

    intervals: dict[str, Interval]
    p_values: dict[str, float]
    resamples: int
    skipped: int
    groups: int


def draw_weights(groups: ArrayLike, *, resamples: int, seed: int, max_bytes: int = MAX_BLOCK_BYTES) -> Iterator[Floats]:
    """Draw patients with replacement, as many as there are, and count how often each image is drawn.

    The replicates come in blocks, so that memory does not grow with their number, nor with images times replicates.

    Args:
        groups: (images,), patient group of each image.
        resamples: total number of replicates.
        seed: seed of the draw; the same seed gives the same replicates whatever the blocks.
        max_bytes: memory that a statistic may take for a block; see :data:`MAX_BLOCK_BYTES`.

    Yields:
        (replicates, images) counts as float64.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    count = int(member.max()) + 1 if member.size else 0
    generator = np.random.default_rng(seed)
    share = np.full(count, 1 / count) if count else np.zeros(0)
    of_one_replicate = ARRAYS * max(1, member.size) * np.dtype(np.float64).itemsize
    block = int(np.clip(max_bytes // of_one_replicate, 1, MAX_BLOCK_REPLICATES))
    for start in range(0, resamples, block):
        drawn = generator.multinomial(count, share, size=min(block, resamples - start))
        yield drawn.astype(np.float64)[:, member]


def bootstrap(
    statistic: Statistic,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    resamples: int,
    seed: int,
    confidence: float = CONFIDENCE,
) -> BootstrapResult:
    """Compute the percentile interval of each value of a statistic.

    To compare two models on the same draws, pass a statistic that returns their difference. Its p-value is the test
    that belongs to the interval (Efron and Tibshirani 1993, 15.4): twice the smaller share of replicates at or below
    and at or above 0. The images as they are count as one more replicate, so that the p-value is never 0.

    Args:
        statistic: weights (replicates, images) to (replicates,) values by name; NaN where undefined.
        labels: (images,), 0 or 1; where both classes are there, a replicate without both is skipped and counted.
        groups: (images,), patient group of each image.
        resamples: number of replicates to draw.
        seed: seed of the draw.
        confidence: share of the replicates inside the interval.

    Returns:
        The intervals; low and high are NaN for a metric that is undefined in every replicate.
    """
    target = np.asarray(labels, dtype=np.float64)
    replicates: dict[str, list[Floats]] = {}
    used = 0
    for weights in _draws_of_both_classes(target, groups, resamples, seed):
        used += len(weights)
        for name, values in statistic(weights).items():
            replicates.setdefault(name, []).append(np.asarray(values))
    tail = 100 * (1 - confidence) / 2
    intervals, p_values = {}, {}
    for name, value in statistic(np.ones((1, target.size))).items():
        values = np.concatenate(replicates[name]) if name in replicates else np.empty(0)
        defined = values[np.isfinite(values)]
        low, high = np.percentile(defined, (tail, 100 - tail)) if defined.size else (np.nan, np.nan)
        intervals[name] = Interval(float(value[0]), float(low), float(high))
        p_values[name] = _p_value(defined)
    return BootstrapResult(intervals, p_values, resamples, resamples - used, np.unique(np.asarray(groups)).size)


def bootstrap_band(
    curve: Callable[[Floats], tuple[Floats, Floats]],
    labels: ArrayLike,
    groups: ArrayLike,
    grid: ArrayLike,
    *,
    resamples: int,
    seed: int,
    confidence: float = CONFIDENCE,
) -> tuple[Floats, Floats]:
    """Compute the pointwise interval of a rising curve, for example sensitivity over false positive rate.

    Args:
        curve: weights (replicates, images) to abscissa and ordinate, each (replicates, points), ascending.
        labels: (images,), 0 or 1; a replicate without both classes is skipped.
        groups: (images,), patient group of each image.
        grid: (n,) abscissas of the band.
        resamples: number of replicates to draw.
        seed: seed of the draw.
        confidence: share of the replicates inside the band.

    Returns:
        Lower and upper ordinate, each (n,); NaN without a usable replicate.
    """
    target, points = np.asarray(labels, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    ordinates: list[Floats] = []
    for weights in _draws_of_both_classes(target, groups, resamples, seed):
        xs, ys = curve(weights)
        ordinates.extend(np.interp(points, x, y) for x, y in zip(xs, ys, strict=True))
    if not ordinates:
        return np.full(points.shape, np.nan), np.full(points.shape, np.nan)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.stack(ordinates), (tail, 100 - tail), axis=0)
    return low, high


def _draws_of_both_classes(target: Floats, groups: ArrayLike, resamples: int, seed: int) -> Iterator[Floats]:
    """Draw weights (replicates, images) and leave out replicates that lack a class that the images have."""
    has_one_class = np.unique(target).size == 1
    for weights in draw_weights(groups, resamples=resamples, seed=seed):
        if has_one_class:
            yield weights
            continue
        positives = weights @ target
        has_both = (positives > 0) & (positives < weights.sum(axis=-1))
        if has_both.any():
            yield weights[has_both]


def _p_value(values: Floats) -> float:
    if not values.size:
        return float("nan")
    smaller_side = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(1.0, 2 * (1 + smaller_side) / (1 + values.size))

"""Percentile bootstrap over patients: one patient's images are not independent, so patients are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.evaluation.metrics import Floats

CONFIDENCE = 0.95
BATCH = 250
"""Replicates computed at once: 250 replicates of 900 images take 2 MB per array."""

Statistic = Callable[[Floats], Mapping[str, Floats]]
"""Weights (replicates, images) to values (replicates, ...), by name."""


@dataclass(frozen=True)
class Interval:
    """A measured value and its 95 % interval.

    Attributes:
        value: the measure on the images as they are.
        low: 2.5th percentile of the replicates.
        high: 97.5th percentile of the replicates.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain values, for JSON.

        Returns:
            ``{"value": ..., "low": ..., "high": ...}``.
        """
        return asdict(self)


@dataclass(frozen=True)
class Bootstrap:
    """Intervals of several measures and how they came about.

    Attributes:
        intervals: measure name to its interval.
        p_values: measure name to the two-sided probability of replicates on the other side of 0; only of use
            for differences. NaN if unknown.
        resamples: replicates that were drawn.
        skipped: replicates left out because they held one class only.
        groups: patients (or united patients) that were drawn from.
    """

    intervals: dict[str, Interval]
    p_values: dict[str, float]
    resamples: int
    skipped: int
    groups: int


def draws(groups: ArrayLike, *, resamples: int, seed: int, batch: int = BATCH) -> Iterator[Floats]:
    """Draw patients with replacement, as many as there are, and count how often each image is taken.

    Args:
        groups: (images,), patient key of each image.
        resamples: replicates in all.
        seed: seed of the draw; the same seed gives the same replicates whatever ``batch`` is.
        batch: replicates per yielded array.

    Yields:
        (replicates, images) counts as float64.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    count = int(member.max()) + 1 if member.size else 0
    generator = np.random.default_rng(seed)
    share = np.full(count, 1 / count) if count else np.zeros(0)
    for start in range(0, resamples, batch):
        taken = generator.multinomial(count, share, size=min(batch, resamples - start))
        yield taken[:, member].astype(np.float64)


def bootstrap(
    statistic: Statistic,
    target: ArrayLike,
    groups: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Bootstrap:
    """Give each value of a statistic its percentile interval.

    Two models are compared on the same draws by a statistic that returns their difference. Its p-value is the
    test that belongs to the interval (Efron and Tibshirani 1993, 15.4): twice the smaller share of replicates at
    or below and at or above 0, counting the images as they are as one replicate more, so that it is never 0.

    Args:
        statistic: weights (replicates, images) to (replicates,) values by name; NaN where undefined.
        target: (images,), 0 or 1; a replicate without both classes is skipped and counted.
        groups: (images,), patient key of each image.
        resamples: replicates to draw.
        seed: seed of the draw.
        confidence: share of the replicates inside the interval.

    Returns:
        The intervals; low and high are NaN for a measure that is undefined in every replicate.
    """
    sick = np.asarray(target, dtype=np.float64)
    rows: dict[str, list[Floats]] = {}
    skipped = 0
    for weights in draws(groups, resamples=resamples, seed=seed):
        positives = weights @ sick
        usable = (positives > 0) & (positives < weights.sum(axis=-1))
        skipped += int((~usable).sum())
        if usable.any():
            for name, values in statistic(weights[usable]).items():
                rows.setdefault(name, []).append(np.asarray(values))
    tail = 100 * (1 - confidence) / 2
    plain = {name: float(value[0]) for name, value in statistic(np.ones((1, sick.size))).items()}
    intervals, p_values = {}, {}
    for name, value in plain.items():
        replicates = np.concatenate(rows[name]) if name in rows else np.empty(0)
        low, high = percentiles(replicates, (tail, 100 - tail))
        intervals[name] = Interval(value, float(low), float(high))
        p_values[name] = _p_value(replicates)
    return Bootstrap(intervals, p_values, resamples, skipped, np.unique(np.asarray(groups)).size)


def band(
    curve: Callable[[Floats], tuple[Floats, Floats]],
    target: ArrayLike,
    groups: ArrayLike,
    grid: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[Floats, Floats]:
    """Pointwise interval of a rising curve, for example sensitivity over false positive rate.

    Args:
        curve: weights (replicates, images) to abscissa and ordinate, each (replicates, points), ascending.
        target: (images,), 0 or 1; a replicate without both classes is skipped.
        groups: (images,), patient key of each image.
        grid: (n,) abscissas at which the band is wanted.
        resamples: replicates to draw.
        seed: seed of the draw.
        confidence: share of the replicates inside the band.

    Returns:
        Lower and upper ordinate, each (n,); NaN without a usable replicate.
    """
    sick, points = np.asarray(target, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    ordinates: list[Floats] = []
    for weights in draws(groups, resamples=resamples, seed=seed):
        positives = weights @ sick
        usable = (positives > 0) & (positives < weights.sum(axis=-1))
        if usable.any():
            xs, ys = curve(weights[usable])
            ordinates.extend(np.interp(points, x, y) for x, y in zip(xs, ys, strict=True))
    if not ordinates:
        return np.full(points.shape, np.nan), np.full(points.shape, np.nan)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.stack(ordinates), (tail, 100 - tail), axis=0)
    return low, high


def percentiles(values: Floats, wanted: tuple[float, ...]) -> NDArray[np.float64]:
    """Percentiles of the defined values.

    Args:
        values: (replicates,), NaN where undefined.
        wanted: percentiles in 0 .. 100.

    Returns:
        (wanted,); NaN if no value is defined.
    """
    defined = values[np.isfinite(values)]
    return np.percentile(defined, wanted) if defined.size else np.full(len(wanted), np.nan)


def _p_value(replicates: Floats) -> float:
    defined = replicates[np.isfinite(replicates)]
    if not defined.size:
        return float("nan")
    fewer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (1 + fewer) / (1 + defined.size))

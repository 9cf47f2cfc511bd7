"""Compares two models on the same images: differences with intervals and p-values from one paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxr.data.dataset import PNEUMONIA
from cxr.data.split_table import TEST, VALIDATION
from cxr.errors import DataError
from cxr.evaluation.bootstrap import bootstrap
from cxr.evaluation.metrics import Floats, auroc, log_loss

MetricFunction = Callable[[ArrayLike, ArrayLike, ArrayLike | None], Floats]
"""Labels, probability and weight to a metric, as in :mod:`cxr.evaluation.metrics`."""

COMPARED_METRICS: Mapping[str, MetricFunction] = {"auroc": auroc, "log_loss": log_loss}
"""Metrics that do not depend on a threshold. A higher AUROC and a lower log loss (in nats) are better."""

SENSITIVITY = "sensitivity"
"""Key of the sensitivity at a specificity that both models keep."""

METRIC_TITLES = {
    "auroc": "AUROC",
    "log_loss": "log loss",
    SENSITIVITY: "sensitivity at the same specificity",
    "mean_average_precision": "mean average precision",
}

DECIMALS = 5
"""Digits of differences: smaller ones come from the precision of the temperature fit."""


@dataclass(frozen=True)
class MetricDifference:
    """A metric of two models on the test images.

    Attributes:
        ours: metric of the first model.
        theirs: metric of the second.
        difference: ours - theirs.
        low: lower end of the interval of the difference over the replicates; NaN if unknown.
        high: upper end; NaN if unknown.
        p_value: two-sided, in (0, 1]; NaN if unknown.
        significant: whether the p-value is below 1 - confidence; the interval then lies on one side of 0.
    """

    ours: float
    theirs: float
    difference: float
    low: float
    high: float
    p_value: float
    significant: bool


@dataclass(frozen=True)
class ModelComparison:
    """The comparison of two models.

    Attributes:
        ours: name of the first model.
        theirs: name of the second.
        validation: metric to its values for both; without intervals, because both were chosen on validation.
        test: metric to its difference.
        images: number of test images.
        patients: number of their patient groups, which are drawn.
        resamples: number of bootstrap replicates.
        skipped: number of replicates left out because they held one class only.
        seed: seed of the draw.
        confidence: share of the replicates inside an interval.
    """

    ours: str
    theirs: str
    validation: dict[str, tuple[float, float]]
    test: dict[str, MetricDifference]
    images: int
    patients: int
    resamples: int
    skipped: int
    seed: int
    confidence: float

    def sentence(self) -> str:
        """Say whether the first model is better.

        Returns:
            A sentence without its full stop, with one clause per metric.
        """
        return f"On {self.images} test images {self.ours} has " + " and ".join(
            self._clause(name, difference) for name, difference in self.test.items()
        )

    def _clause(self, name: str, metric: MetricDifference) -> str:
        if not metric.difference:
            return f"the same {METRIC_TITLES[name]} as {self.theirs}"
        side = "higher" if metric.difference > 0 else "lower"
        verdict = "significant" if metric.significant else "not significant"
        return (
            f"a {side} {METRIC_TITLES[name]} than {self.theirs} by {abs(metric.difference):.4f} "
            f"({100 * self.confidence:.0f} % interval of the difference {metric.low:+.4f} to {metric.high:+.4f}, "
            f"p = {metric.p_value:.2g}: {verdict})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return {
            "sentence": f"{self.sentence()}.",
            "ours": self.ours,
            "theirs": self.theirs,
            "validation": {
                name: {"ours": ours, "theirs": theirs, "difference": ours - theirs}
                for name, (ours, theirs) in self.validation.items()
            },
            "test": {name: asdict(difference) for name, difference in self.test.items()},
            "bootstrap": {
                "confidence": self.confidence,
                "resamples": self.resamples,
                "skipped": self.skipped,
                "seed": self.seed,
                "unit": "patient",
            },
        }


def compare_models(
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    names: tuple[str, str],
    *,
    metrics: Mapping[str, MetricFunction] = COMPARED_METRICS,
    column: str = "probability",
    confidence: float,
    resamples: int,
    seed: int,
) -> ModelComparison:
    """Compare two models evaluated on the same images; each replicate draws the same patients for both.

    Args:
        ours: predictions of the first model with path, group (patient), label, split and ``column``.
        theirs: predictions of the second, the same images in the same order.
        names: names of both models.
        metrics: metrics to compare, with the keys of :data:`METRIC_TITLES`.
        column: column that the metrics are computed from; the calibrated probability unless something else was
            measured in each image.
        confidence: share of the replicates inside an interval.
        resamples: number of bootstrap replicates.
        seed: seed of the draw.

    Returns:
        The comparison.

    Raises:
        DataError: if the images differ.
    """
    if ours["path"].tolist() != theirs["path"].tolist():
        raise DataError(
            f"expected two models on the same images, received {names[0]} with {len(ours)} and {names[1]} with "
            f"{len(theirs)} images that differ; run `cxr evaluate` for both on one split"
        )
    in_split = {split: (ours["split"] == split).to_numpy() for split in (VALIDATION, TEST)}
    labels = (ours["label"] == PNEUMONIA).to_numpy().astype(np.int64)
    first, second = (table[column].to_numpy(dtype=np.float64) for table in (ours, theirs))

    def values_of_both(split: str, weight: Floats | None = None) -> dict[str, tuple[Floats, Floats]]:
        rows = in_split[split]
        return {
            name: (metric(labels[rows], first[rows], weight), metric(labels[rows], second[rows], weight))
            for name, metric in metrics.items()
        }

    drawn = bootstrap(
        lambda weight: {
            name: np.round(first_value - second_value, DECIMALS)
            for name, (first_value, second_value) in values_of_both(TEST, weight).items()
        },
        labels[in_split[TEST]],
        ours["group"][in_split[TEST]],
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )
    differences = {}
    for name, (first_value, second_value) in values_of_both(TEST).items():
        interval, p_value = drawn.intervals[name], drawn.p_values[name]
        differences[name] = MetricDifference(
            float(first_value), float(second_value), interval.value, interval.low, interval.high,
            p_value, p_value < 1 - confidence,
        )  # fmt: skip
    return ModelComparison(
        *names,
        {name: (float(ours), float(theirs)) for name, (ours, theirs) in values_of_both(VALIDATION).items()},
        differences,
        int(in_split[TEST].sum()),
        drawn.groups,
        resamples,
        drawn.skipped,
        seed,
        confidence,
    )

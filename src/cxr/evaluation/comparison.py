"""Two models on the same images: differences with intervals and p-values from one paired bootstrap over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxr.data.dataset import PNEUMONIA
from cxr.errors import DataError
from cxr.evaluation.bootstrap import CONFIDENCE, bootstrap
from cxr.evaluation.evaluate import TEST, VALIDATION
from cxr.evaluation.metrics import Floats, auroc, log_loss

Figure = Callable[[ArrayLike, ArrayLike, ArrayLike | None], Floats]
"""Target, probability and weight to a figure, as in :mod:`cxr.evaluation.metrics`."""

FIGURES: Mapping[str, Figure] = {"auroc": auroc, "log_loss": log_loss}
"""What is compared if nothing else is asked for: more AUROC is better, less log loss (in nats) is."""

SENSITIVITY = "sensitivity"
"""Name of the sensitivity at a specificity that both models keep."""

WORDS = {"auroc": "AUROC", "log_loss": "log loss", SENSITIVITY: "sensitivity at the same specificity"}

DECIMALS = 5
"""Differences are rounded here: finer ones come from how exactly a temperature is fitted."""


@dataclass(frozen=True)
class Difference:
    """A figure of two models on the test images.

    Attributes:
        ours: figure of the first model.
        theirs: figure of the second.
        difference: ours - theirs.
        low: lower end of the difference's interval over the replicates; NaN if unknown, as below.
        high: its upper end.
        p_value: two-sided, in (0, 1].
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
class Comparison:
    """Two models side by side.

    Attributes:
        ours: name of the first model.
        theirs: name of the second.
        validation: figure to its values for both; without intervals, because validation has chosen both.
        test: figure to its difference.
        images: test images.
        patients: their patients, which are drawn.
        resamples: bootstrap replicates.
        skipped: those left out because they held one class only.
        seed: seed of the draw.
        confidence: share of the replicates inside an interval.
    """

    ours: str
    theirs: str
    validation: dict[str, tuple[float, float]]
    test: dict[str, Difference]
    images: int
    patients: int
    resamples: int
    skipped: int
    seed: int
    confidence: float = CONFIDENCE

    def sentence(self) -> str:
        """Say whether the first model is better.

        Returns:
            Two clauses, one per figure.
        """
        return f"On {self.images} test images {self.ours} has " + " and ".join(
            self._clause(name, found) for name, found in self.test.items()
        )

    def _clause(self, name: str, found: Difference) -> str:
        if not found.difference:
            return f"the same {WORDS[name]} as {self.theirs}"
        side = "higher" if found.difference > 0 else "lower"
        verdict = "significant" if found.significant else "not significant"
        return (
            f"a {side} {WORDS[name]} than {self.theirs} by {abs(found.difference):.4f} "
            f"({100 * self.confidence:.0f} % interval of the difference {found.low:+.4f} to {found.high:+.4f}, "
            f"p = {found.p_value:.2g}: {verdict})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Make it storable.

        Returns:
            Plain values, for JSON.
        """
        return {
            "sentence": f"{self.sentence()}.",
            "ours": self.ours,
            "theirs": self.theirs,
            "validation": {
                name: {"ours": ours, "theirs": theirs, "difference": ours - theirs}
                for name, (ours, theirs) in self.validation.items()
            },
            "test": {name: asdict(found) for name, found in self.test.items()},
            "bootstrap": {
                "confidence": self.confidence,
                "resamples": self.resamples,
                "skipped": self.skipped,
                "seed": self.seed,
                "unit": "patient",
            },
        }


def compare(
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    names: tuple[str, str],
    *,
    figures: Mapping[str, Figure] = FIGURES,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two models judged on the same images; each replicate draws the same patients for both.

    Args:
        ours: predictions of the first model with path, group (patient), label, split and probability (calibrated).
        theirs: predictions of the second, the same images in the same order.
        names: names of both models.
        figures: what to compare, by names of :data:`WORDS`.
        confidence: share of the replicates inside an interval.
        resamples: bootstrap replicates.
        seed: seed of the draw.

    Returns:
        The comparison.

    Raises:
        DataError: if the images differ.
    """
    if ours["path"].tolist() != theirs["path"].tolist():
        raise DataError(
            f"expected two models judged on the same images, received {names[0]} with {len(ours)} and {names[1]} with "
            f"{len(theirs)} images that differ; run `cxr evaluate` for both on one split"
        )
    parts = {split: (ours["split"] == split).to_numpy() for split in (VALIDATION, TEST)}
    target = (ours["label"] == PNEUMONIA).to_numpy().astype(np.int64)
    first, second = (table["probability"].to_numpy(dtype=np.float64) for table in (ours, theirs))

    def both(split: str, weight: Floats | None = None) -> dict[str, tuple[Floats, Floats]]:
        part = parts[split]
        return {
            name: (figure(target[part], first[part], weight), figure(target[part], second[part], weight))
            for name, figure in figures.items()
        }

    drawn = bootstrap(
        lambda weight: {name: np.round(one - other, DECIMALS) for name, (one, other) in both(TEST, weight).items()},
        target[parts[TEST]],
        ours["group"][parts[TEST]],
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )
    differences = {}
    for name, (one, other) in both(TEST).items():
        found, chance = drawn.intervals[name], drawn.p_values[name]
        differences[name] = Difference(
            float(one), float(other), found.value, found.low, found.high, chance, chance < 1 - confidence
        )
    return Comparison(
        *names,
        {name: (float(one), float(other)) for name, (one, other) in both(VALIDATION).items()},
        differences,
        int(parts[TEST].sum()),
        drawn.groups,
        resamples,
        drawn.skipped,
        seed,
        confidence,
    )

"""Compares what a shadow has answered with what clients were told for the same images. Nobody knows the truth of them.

Rows are those of :func:`cxr.serving.prediction_log_reader.read_prediction_log`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxr.data.statistics import share_interval
from cxr.errors import MissingInputError

REFUSED = "REFUSED"
"""Outcome of an image that a version refuses, beside the labels."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the difference of probabilities."""
NAN = float("nan")


@dataclass(frozen=True)
class VersionPair:
    """The versions that are compared.

    Attributes:
        version: number of the version that answered the clients.
        model: name of its model.
        shadow_version: number of the shadow.
        shadow_model: name of its model.
    """

    version: str
    model: str
    shadow_version: str
    shadow_model: str

    def __str__(self) -> str:
        """Name both, e.g. ``"version 3 (three_block) and its shadow, version 4 (shallow)"``."""
        return (
            f"version {self.version} ({self.model}) and its shadow, version {self.shadow_version} ({self.shadow_model})"
        )


@dataclass(frozen=True)
class ShadowComparison:
    """What the answers of both versions have in common.

    Attributes:
        pair: the versions.
        images: number of images for which both have answered, refusals included.
        unanswered: number of images of the version since the first of these that no shadow has answered: it drops
            images under load, and answers none that it fails for.
        outcomes: label or :data:`REFUSED` of the version, to that of the shadow, to the number of images.
        same: number of images with the same outcome.
        predicted: number of images for which both have a probability.
        same_label: number of those with the same label.
        kappa: Cohen's kappa of those labels, -1 to 1; NaN if both have only one and the same label.
        mean_difference: mean of shadow minus version, over the probabilities; NaN without any.
        mean_absolute_difference: mean of its absolute value.
        difference_quantiles: quantile to its value.
        positive: number of those images at or above the version's threshold.
        shadow_positive: number of those images at or above the shadow's threshold.
    """

    pair: VersionPair
    images: int
    unanswered: int
    outcomes: dict[str, dict[str, int]]
    same: int
    predicted: int
    same_label: int
    kappa: float
    mean_difference: float
    mean_absolute_difference: float
    difference_quantiles: dict[float, float]
    positive: int
    shadow_positive: int

    @property
    def agreement(self) -> dict[str, float]:
        """Share of the images with a probability of both that have the same label, with its 95 % interval."""
        value = self.same_label / self.predicted if self.predicted else NAN
        low, high = share_interval(self.same_label, self.predicted)
        return {"value": value, "low": low, "high": high}

    def sentence(self) -> str:
        """Say how far both agree, in one sentence without full stop."""
        disagreements = f"{self.images - self.same:,} of {self.images:,} images have different outcomes"
        if not self.predicted:
            return f"{self.pair} have no image with a probability of both; {disagreements}"
        share, kappa = self.agreement, "unknown" if np.isnan(self.kappa) else f"{self.kappa:.2f}"
        return (
            f"{self.pair} give the same label to {100 * share['value']:.1f} % of {self.predicted:,} images "
            f"({100 * share['low']:.1f} to {100 * share['high']:.1f} %, kappa {kappa}); {disagreements}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON; NaN if unknown."""
        values = asdict(self)
        quantiles = {f"{quantile:g}": value for quantile, value in values.pop("difference_quantiles").items()}
        return {
            **values.pop("pair"), **values, "difference_quantiles": quantiles, "agreement": self.agreement,
            "disagreements": self.images - self.same, "sentence": self.sentence(),
        }  # fmt: skip


def choose_pair(rows: pd.DataFrame, version: str | None, shadow_version: str | None) -> VersionPair:
    """Choose the versions to compare.

    Args:
        rows: rows of a window.
        version: number of the version that answered the clients; None for any.
        shadow_version: number of the shadow; None for any.

    Returns:
        The versions of the newest answer of a shadow that fits.

    Raises:
        MissingInputError: if none fits.
    """
    pairs = list(_pairs(rows))
    for pair in reversed(pairs):
        if version in (None, pair.version) and shadow_version in (None, pair.shadow_version):
            return pair
    if not pairs:
        raise MissingInputError(
            f"expected answers of a shadow in the window, received {len(rows)} rows without any; log them with "
            "`cxr serve --shadow challenger --log_predictions FOLDER`, or take a longer window (since)"
        )
    listed = ", ".join(f"{pair.version} and {pair.shadow_version}" for pair in pairs)
    raise MissingInputError(
        f"expected a version and its shadow that stand in the window ({listed}), received served_version={version}, "
        f"shadow_version={shadow_version}; leave them out for the newest, or take a longer window (since)"
    )


def other_pairs(rows: pd.DataFrame, pair: VersionPair) -> list[VersionPair]:
    """List the further versions and shadows of a window, in the order of their last answer."""
    return [other for other in _pairs(rows) if other != pair]


def rows_of_pair(rows: pd.DataFrame, pair: VersionPair) -> pd.DataFrame:
    """Take the rows for which both versions have answered.

    Args:
        rows: rows of a window.
        pair: the versions.

    Returns:
        The rows, with further columns: ``outcome`` and ``shadow_outcome`` (label or :data:`REFUSED`), ``difference``
        (probability of the shadow minus that of the version; NaN unless both have one).
    """
    both = rows[[_pair_of(row) == pair for row in rows.itertuples()]]
    return both.assign(
        outcome=both["label"].fillna(REFUSED),
        shadow_outcome=both["shadow_label"].fillna(REFUSED),
        difference=both["shadow_probability"] - both["probability"],
    )


def compare_with_shadow(rows: pd.DataFrame, pair: VersionPair) -> ShadowComparison:
    """Compare the answers of a version and its shadow.

    Args:
        rows: rows of a window.
        pair: the versions.

    Returns:
        The comparison.
    """
    both = rows_of_pair(rows, pair)
    since_then = rows[rows["time"].ge(both["time"].min()) & rows["version"].eq(pair.version)]
    predicted = both[both["difference"].notna()]
    difference = predicted["difference"]
    outcomes = both.groupby(["outcome", "shadow_outcome"]).size()
    return ShadowComparison(
        pair=pair,
        images=len(both),
        unanswered=int(since_then["shadow_version"].isna().sum()),
        outcomes={
            str(outcome): {str(name): int(count) for name, count in counts.droplevel(0).items()}
            for outcome, counts in outcomes.groupby(level=0)
        },
        same=int(both["outcome"].eq(both["shadow_outcome"]).sum()),
        predicted=len(predicted),
        same_label=int(predicted["label"].eq(predicted["shadow_label"]).sum()),
        kappa=_kappa(predicted["label"], predicted["shadow_label"]),
        mean_difference=float(difference.mean()),
        mean_absolute_difference=float(difference.abs().mean()),
        difference_quantiles={quantile: float(difference.quantile(quantile)) for quantile in QUANTILES},
        positive=int(predicted["probability"].ge(predicted["threshold"]).sum()),
        shadow_positive=int(predicted["shadow_probability"].ge(predicted["shadow_threshold"]).sum()),
    )


def find_disagreements(both: pd.DataFrame) -> pd.DataFrame:
    """List the images with different outcomes.

    Args:
        both: what :func:`rows_of_pair` returns.

    Returns:
        Their rows: first those that one version refuses, then by falling difference of the probabilities.
    """
    different = both[both["outcome"] != both["shadow_outcome"]]
    order = different["difference"].abs().sort_values(ascending=False, na_position="first", kind="stable").index
    return different.loc[order]


def rows_as_of_shadow(both: pd.DataFrame) -> pd.DataFrame:
    """Put the answers of the shadow in place of those of the version, as if it had answered the clients.

    Args:
        both: what :func:`rows_of_pair` returns.

    Returns:
        The same rows without embeddings, because those of the log are the version's.
    """
    names = ("version", "alias", "model", "label", "probability", "threshold", "refusal")
    return both.assign(embedding=None, **{name: both[f"shadow_{name}"] for name in names})


def _pair_of(row: Any) -> VersionPair | None:
    versions = (row.version, row.model, row.shadow_version, row.shadow_model)
    return VersionPair(*versions) if all(isinstance(value, str) for value in versions) else None


def _pairs(rows: pd.DataFrame) -> Iterator[VersionPair]:
    """Each pair once, in the order of the last answer."""
    answered = rows.dropna(subset=["shadow_version"]).drop_duplicates(
        ["version", "model", "shadow_version", "shadow_model"], keep="last"
    )
    yield from (pair for row in answered.itertuples() if (pair := _pair_of(row)) is not None)


def _kappa(labels: pd.Series, shadow_labels: pd.Series) -> float:
    from sklearn.metrics import cohen_kappa_score

    if len({*labels, *shadow_labels}) < 2:
        return NAN
    return float(cohen_kappa_score(labels, shadow_labels))

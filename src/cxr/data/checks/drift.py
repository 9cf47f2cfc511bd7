"""Tells whether a data set still looks like the last accepted one: its statistics are compared per class.

Brightness, sizes and file sizes are compared with the two-sample Kolmogorov-Smirnov statistic (the largest
gap between two cumulative distributions, 0..1), class and subtype shares with the total variation distance
(half the sum of absolute differences, 0..1). A difference is drift if it exceeds its limit and chance does not
explain it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from cxr.data.dataset import CLASSES, DatasetCard
from cxr.data.statistics import SampleDifference, kolmogorov_smirnov_test
from cxr.files import read_json, whole_folder, write_json
from cxr.tables import read_table, write_table

STATISTICS: tuple[str, ...] = ("mean", "std", "width", "height", "aspect", "bytes")
"""Per image: mean and standard deviation of grey levels (0..255), pixels, width / height, file size."""

BASELINE_SAMPLE_FILE = "sample.parquet"
BASELINE_CARD_FILE = "accepted.json"
_SAMPLE_COLUMNS = ["label", "subtype", *STATISTICS]
BASELINE_COLUMNS = ("status", *(name for name in _SAMPLE_COLUMNS if name != "aspect"))
"""Columns of a manifest that the statistics are taken from."""
_COLUMNS = ["statistic", "group", "accepted", "current", "distance", "limit", "p_value", "drifted"]


@dataclass(frozen=True)
class DriftLimits:
    """How far a statistic may move before the change is called drift.

    Attributes:
        distance: largest Kolmogorov-Smirnov statistic of one class, 0..1.
        shares: largest total variation distance of class or subtype shares, 0..1.
        significance: a distance beyond its limit counts only if its p-value is smaller than this, so that small
            data sets do not drift by chance.
    """

    distance: float
    shares: float
    significance: float


@dataclass(frozen=True)
class BaselineStatistics:
    """The statistics of a data set with which later ones are compared.

    Attributes:
        card: where the data came from.
        digest: content version of the data.
        sample: one row per accepted image: label, subtype and :data:`STATISTICS`.
    """

    card: DatasetCard
    digest: str
    sample: pd.DataFrame

    @classmethod
    def from_manifest(cls, manifest: pd.DataFrame, card: DatasetCard, digest: str) -> BaselineStatistics:
        """Take the statistics of a manifest.

        Args:
            manifest: one row per file, with :data:`BASELINE_COLUMNS`.
            card: card of the data set.
            digest: content version of the data.

        Returns:
            The statistics; quarantined files are left out.
        """
        accepted = manifest.loc[manifest["status"] == "accepted", list(BASELINE_COLUMNS[1:])]
        sample = accepted.assign(aspect=accepted["width"] / accepted["height"])[_SAMPLE_COLUMNS]
        return cls(card, digest, sample.reset_index(drop=True))

    def write(self, folder: Path) -> None:
        """Store this data set as the accepted one of its kind, in place of the previous one.

        Args:
            folder: folder of baselines; there is one sub-folder per kind, so that drawn images never
                become the baseline of radiographs.
        """
        with whole_folder(folder / self.card.kind) as partial:
            write_table(partial / BASELINE_SAMPLE_FILE, self.sample)
            write_json(partial / BASELINE_CARD_FILE, {"card": asdict(self.card), "digest": self.digest})

    @classmethod
    def read(cls, folder: Path, kind: str) -> BaselineStatistics | None:
        """Read the accepted data set of a kind.

        Args:
            folder: folder of baselines.
            kind: ``"phantom"`` or ``"patients"``.

        Returns:
            The baseline of that kind; if there is none, that of another kind; None if nothing was accepted.
        """
        for path in (folder / kind, *sorted(folder.glob("[!.]*"))):
            if (path / BASELINE_CARD_FILE).exists() and (path / BASELINE_SAMPLE_FILE).exists():
                values = read_json(path / BASELINE_CARD_FILE)
                sample = read_table(path / BASELINE_SAMPLE_FILE)
                return cls(DatasetCard(**values["card"]), values["digest"], sample)
        return None


@dataclass(frozen=True)
class DatasetComparison:
    """Outcome of comparing two data sets.

    Attributes:
        table: one row per statistic and group (a class, or ``"all"`` for shares): medians or shares of the accepted
            and of the current data set, distance, limit, p-value (NaN where unknown), whether it drifted. Empty if
            the data sets were not compared.
        note: one sentence for the report: compared with what, or why not.
    """

    table: pd.DataFrame
    note: str

    @property
    def compared(self) -> bool:
        """Whether there was an accepted data set of the same kind to compare with."""
        return not self.table.empty

    @property
    def drifted(self) -> bool:
        """Whether any statistic moved beyond its limit."""
        return bool(self.table["drifted"].any())


def compare_datasets(
    current: BaselineStatistics, accepted: BaselineStatistics | None, limits: DriftLimits
) -> DatasetComparison:
    """Compare a data set with the last accepted one.

    Args:
        current: statistics of the data set to check.
        accepted: statistics of the last accepted data set, or None.
        limits: how far a statistic may move.

    Returns:
        The comparison; data sets of different kinds are not compared, and the note says so.
    """
    empty = pd.DataFrame(columns=_COLUMNS)
    if accepted is None:
        return DatasetComparison(empty, "not compared: no data set has been accepted before this one")
    if accepted.card.kind != current.card.kind:
        return DatasetComparison(
            empty,
            f"not compared: the last accepted data set, {accepted.card.name}, is of kind {accepted.card.kind}, "
            f"this one, {current.card.name}, is of kind {current.card.kind}",
        )
    rows = [
        _compare_distribution(statistic, label, accepted.sample, current.sample, limits)
        for label in CLASSES
        for statistic in STATISTICS
    ]
    rows += [_compare_group_shares(column, accepted.sample, current.sample, limits) for column in ("label", "subtype")]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    images = "the same images as" if accepted.digest == current.digest else "other images than"
    note = (
        f"compared with {accepted.card.name} ({len(accepted.sample):,} images, digest {accepted.digest[:12]}): "
        f"{images} the last accepted data set; {int(table['drifted'].sum())} of {len(table)} statistics drifted"
    )
    return DatasetComparison(table, note)


def _compare_distribution(
    statistic: str, label: str, accepted: pd.DataFrame, current: pd.DataFrame, limits: DriftLimits
) -> dict[str, object]:
    """Compare the values of one statistic in one class."""
    old, new = (
        sample.loc[sample["label"] == label, statistic].dropna().to_numpy(np.float64) for sample in (accepted, current)
    )
    difference = kolmogorov_smirnov_test(old, new)
    return {
        "statistic": statistic,
        "group": label,
        "accepted": float(np.median(old)) if len(old) else np.nan,
        "current": float(np.median(new)) if len(new) else np.nan,
        "distance": difference.distance,
        "limit": limits.distance,
        "p_value": difference.p_value,
        "drifted": difference.exceeds(limits.distance, limits.significance),
    }


def _compare_group_shares(
    column: str, accepted: pd.DataFrame, current: pd.DataFrame, limits: DriftLimits
) -> dict[str, object]:
    """Compare class or subtype shares; the row shows the share of the group that was the largest."""
    counts = pd.DataFrame({"old": accepted[column].value_counts(), "new": current[column].value_counts()})
    counts = counts.fillna(0).astype(float)
    shares = counts / counts.sum()
    difference = SampleDifference(
        float((shares["old"] - shares["new"]).abs().sum() / 2),
        float(chi2_contingency(counts.to_numpy().T).pvalue) if len(counts) > 1 else np.nan,
    )
    largest = int(shares["old"].to_numpy().argmax())
    return {
        "statistic": f"{column} shares",
        "group": "all",
        "accepted": float(shares["old"].iloc[largest]),
        "current": float(shares["new"].iloc[largest]),
        "distance": difference.distance,
        "limit": limits.shares,
        "p_value": difference.p_value,
        "drifted": difference.exceeds(limits.shares, limits.significance),
    }

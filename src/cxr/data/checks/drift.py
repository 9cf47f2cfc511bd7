"""Whether a data set still looks like the last one that was accepted: its statistics, compared per class.

Brightness, sizes and file sizes are compared with the two-sample Kolmogorov-Smirnov statistic (the largest
gap between two cumulative distributions, 0..1), class and subtype shares with the total variation distance
(half the sum of absolute differences, 0..1). A difference is drift if it is beyond its limit and chance does not
explain it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from cxr.data.dataset import CLASSES, DatasetCard
from cxr.data.statistics import Difference, kolmogorov_smirnov
from cxr.files import whole_folder

STATISTICS: tuple[str, ...] = ("mean", "std", "width", "height", "aspect", "bytes")
"""Per image: mean and standard deviation of grey levels (0..255), pixels, width / height, file size."""

SAMPLE_NAME = "sample.parquet"
CARD_NAME = "accepted.json"
_SAMPLE_COLUMNS = ["label", "subtype", *STATISTICS]
_COLUMNS = ["statistic", "group", "before", "now", "distance", "limit", "p_value", "drifted"]


@dataclass(frozen=True)
class DriftLimits:
    """How far a statistic may move before it is called drift.

    Attributes:
        distance: largest Kolmogorov-Smirnov statistic of one class, 0..1.
        shares: largest total variation distance of class or subtype shares, 0..1.
        significance: a distance beyond its limit counts only if chance gives it more rarely than this;
            it keeps small sets from drifting by luck.
    """

    distance: float = 0.1
    shares: float = 0.05
    significance: float = 0.01


@dataclass(frozen=True)
class Baseline:
    """What is remembered of an accepted data set.

    Attributes:
        card: where the data came from.
        digest: content version of the data.
        sample: one row per accepted image: label, subtype and :data:`STATISTICS`.
    """

    card: DatasetCard
    digest: str
    sample: pd.DataFrame

    @classmethod
    def of(cls, manifest: pd.DataFrame, card: DatasetCard, digest: str) -> Baseline:
        """Take the statistics of a manifest.

        Args:
            manifest: one row per file, with ``status``, ``label``, ``subtype``, ``width``, ``height``,
                ``bytes``, ``mean`` and ``std``.
            card: card of the data set.
            digest: content version of the data.

        Returns:
            The baseline; quarantined files are left out.
        """
        accepted = manifest[manifest["status"] == "accepted"]
        sample = accepted.assign(aspect=accepted["width"] / accepted["height"])[_SAMPLE_COLUMNS]
        return cls(card, digest, sample.reset_index(drop=True))

    def write(self, folder: Path) -> None:
        """Remember this data set as the accepted one of its kind, replacing the one before.

        Args:
            folder: folder of baselines; there is one sub-folder per kind, so that drawn images never
                become the measure of radiographs.
        """
        with whole_folder(folder / self.card.kind) as partial:
            self.sample.to_parquet(partial / SAMPLE_NAME, index=False)
            text = json.dumps({"card": asdict(self.card), "digest": self.digest}, indent=2)
            (partial / CARD_NAME).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, kind: str) -> Baseline | None:
        """Recall the accepted data set of a kind.

        Args:
            folder: folder of baselines.
            kind: ``"phantom"`` or ``"patients"``.

        Returns:
            The baseline of that kind; if there is none, that of another kind; None if nothing was accepted.
        """
        for path in (folder / kind, *sorted(folder.glob("[!.]*"))):
            if (path / CARD_NAME).exists() and (path / SAMPLE_NAME).exists():
                noted = json.loads((path / CARD_NAME).read_text(encoding="utf-8"))
                sample = pd.read_parquet(path / SAMPLE_NAME)
                return cls(DatasetCard(**noted["card"]), noted["digest"], sample)
        return None


@dataclass(frozen=True)
class Comparison:
    """Outcome of comparing two data sets.

    Attributes:
        table: one row per statistic and group (a class, or ``"all"`` for shares): medians or shares before
            and now, distance, limit, p-value (NaN where unknown), whether it drifted. Empty if not compared.
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


def compare(now: Baseline, before: Baseline | None, limits: DriftLimits | None = None) -> Comparison:
    """Compare a data set with the last accepted one.

    Args:
        now: statistics of the data set at hand.
        before: statistics of the accepted one, or None.
        limits: how far a statistic may move.

    Returns:
        The comparison; data sets of different kinds are not compared, and the note says so.
    """
    limits = limits or DriftLimits()
    nothing = pd.DataFrame(columns=_COLUMNS)
    if before is None:
        return Comparison(nothing, "not compared: no data set has been accepted before this one")
    if before.card.kind != now.card.kind:
        return Comparison(
            nothing,
            f"not compared: the last accepted data set, {before.card.name}, is of kind {before.card.kind}, "
            f"this one, {now.card.name}, is of kind {now.card.kind}",
        )
    rows = [
        _distribution(statistic, label, before.sample, now.sample, limits)
        for label in CLASSES
        for statistic in STATISTICS
    ]
    rows += [_shares(column, before.sample, now.sample, limits) for column in ("label", "subtype")]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    same = "the same images as" if before.digest == now.digest else "other images than"
    note = (
        f"compared with {before.card.name} ({len(before.sample):,} images, digest {before.digest[:12]}): "
        f"{same} the last accepted data set; {int(table['drifted'].sum())} of {len(table)} statistics drifted"
    )
    return Comparison(table, note)


def _distribution(
    statistic: str, label: str, before: pd.DataFrame, now: pd.DataFrame, limits: DriftLimits
) -> dict[str, object]:
    """Compare one statistic of one class."""
    old = before.loc[before["label"] == label, statistic].dropna().to_numpy(np.float64)
    new = now.loc[now["label"] == label, statistic].dropna().to_numpy(np.float64)
    found = kolmogorov_smirnov(old, new)
    return {
        "statistic": statistic,
        "group": label,
        "before": float(np.median(old)) if len(old) else np.nan,
        "now": float(np.median(new)) if len(new) else np.nan,
        "distance": found.distance,
        "limit": limits.distance,
        "p_value": found.p_value,
        "drifted": found.beyond(limits.distance, limits.significance),
    }


def _shares(column: str, before: pd.DataFrame, now: pd.DataFrame, limits: DriftLimits) -> dict[str, object]:
    """Compare class or subtype shares; ``before`` and ``now`` are the share of the largest group."""
    old, new = before[column].value_counts(), now[column].value_counts()
    counts = pd.DataFrame({"old": old, "new": new}).fillna(0).astype(float)
    shares = counts / counts.sum()
    found = Difference(
        float((shares["old"] - shares["new"]).abs().sum() / 2),
        float(chi2_contingency(counts.to_numpy().T).pvalue) if len(counts) > 1 else np.nan,
    )
    largest = int(shares["old"].to_numpy().argmax())
    return {
        "statistic": f"{column} shares",
        "group": "all",
        "before": float(shares["old"].iloc[largest]),
        "now": float(shares["new"].iloc[largest]),
        "distance": found.distance,
        "limit": limits.shares,
        "p_value": found.p_value,
        "drifted": found.beyond(limits.shares, limits.significance),
    }

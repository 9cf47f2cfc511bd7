"""Rows of a log of predictions, as arrays and per day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.dataset import PNEUMONIA
from cxr.data.statistics import share_interval


def of_version(rows: pd.DataFrame, number: str, model: str) -> NDArray[np.bool_]:
    """Which rows a version answered or refused.

    Args:
        rows: rows of a log.
        number: the version's; empty for a model from a folder.
        model: the model's name.

    Returns:
        ``(n,)``.
    """
    same = rows["version"].eq(number) if number else rows["version"].isna()
    return np.asarray(same & rows["model"].eq(model), dtype=np.bool_)


def statistic(rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A statistic of the films of a window.

    Args:
        rows: rows of a log.
        name: its name.

    Returns:
        ``(n,)``, NaN where a row has none; float32 inside, as the training's films have it: many films share a
        width, and a rounding would tell them apart.
    """
    values = pd.Series(rows.get(f"film.{name}", np.nan), index=rows.index, dtype=np.float64)
    return values.to_numpy(np.float32).astype(np.float64)


def embeddings(rows: pd.DataFrame, size: int) -> NDArray[np.float64]:
    """Embeddings of the films of a window.

    Args:
        rows: rows of a log.
        size: numbers of an embedding.

    Returns:
        ``(n, size)``; rows without an embedding of this size are left out.
    """
    points = [one for one in rows["embedding"] if isinstance(one, np.ndarray) and one.shape == (size,)]
    return np.stack(points).astype(np.float64) if points else np.empty((0, size))


def by_day(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Figures of each day (UTC) of a window.

    Args:
        rows: rows of a log.
        names: statistics of films.

    Returns:
        One row per day with rows, indexed by day: ``rows``, ``refused`` and ``pneumonia`` (shares with ``_low`` and
        ``_high``), ``answered``, and the median of each statistic.
    """
    found = []
    for day, of_day in rows.groupby(rows["time"].dt.floor("D")):
        answered = of_day[of_day["probability"].notna()]
        refused, positive = int(of_day["refusal"].notna().sum()), int(answered["label"].eq(PNEUMONIA).sum())
        row: dict[str, Any] = {"day": day, "rows": len(of_day), "answered": len(answered)}
        for name, count, of in (("refused", refused, len(of_day)), ("pneumonia", positive, len(answered))):
            low, high = share_interval(count, of)
            row |= {name: count / of if of else float("nan"), f"{name}_low": low, f"{name}_high": high}
        for name in names:
            values = statistic(answered, name)
            row[name] = float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else float("nan")
        found.append(row)
    return pd.DataFrame(found).set_index("day") if found else pd.DataFrame()

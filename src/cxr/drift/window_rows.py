"""Rows of a prediction log as arrays, and their summary per day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.statistics import share_interval


def is_of_version(rows: pd.DataFrame, version: str, model: str) -> NDArray[np.bool_]:
    """Mark the rows that a version has answered or refused.

    Args:
        rows: rows of a log.
        version: number of the version; empty for a model from a folder.
        model: the model's name.

    Returns:
        ``(n,)``.
    """
    has_version = rows["version"].eq(version) if version else rows["version"].isna()
    return np.asarray(has_version & rows["model"].eq(model), dtype=np.bool_)


def image_statistic(rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Return a statistic of the images of a window.

    The values are rounded to float32, as the training's are. Otherwise images of one width would differ from training
    images of the same width by rounding alone.

    Args:
        rows: rows of a log.
        name: name of the statistic.

    Returns:
        ``(n,)``, NaN for rows without the statistic.
    """
    values = pd.Series(rows.get(f"film.{name}", np.nan), index=rows.index, dtype=np.float64)
    return values.to_numpy(np.float32).astype(np.float64)


def stack_embeddings(rows: pd.DataFrame, size: int) -> NDArray[np.float64]:
    """Return the embeddings of the images of a window.

    Args:
        rows: rows of a log.
        size: length of an embedding.

    Returns:
        ``(n, size)``; rows without an embedding of this length are left out.
    """
    embeddings = [
        embedding for embedding in rows["embedding"] if isinstance(embedding, np.ndarray) and embedding.shape == (size,)
    ]
    return np.stack(embeddings).astype(np.float64) if embeddings else np.empty((0, size))


def embedding_scale(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the standard deviation of each component of the training's embeddings.

    Args:
        embeddings: ``(n, size)``.

    Returns:
        ``(size,)``, with 1 for a constant component, so that one can divide by it.
    """
    deviation = embeddings.std(axis=0, dtype=np.float64)
    return np.where(deviation > 0, deviation, 1.0)


def summarize_by_day(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Summarize each day (UTC) of a window.

    Args:
        rows: rows of a log.
        names: statistics of images.

    Returns:
        One row per day that has rows, indexed by day: ``rows``, ``refused`` and ``pneumonia`` (shares, with ``_low``
        and ``_high``; at or above the threshold), ``answered``, and the median of each statistic.
    """
    days = []
    for day, rows_of_day in rows.groupby(rows["time"].dt.floor("D")):
        answered = rows_of_day[rows_of_day["probability"].notna()]
        refused = int(rows_of_day["refusal"].notna().sum())
        positive = int(answered["probability"].ge(answered["threshold"]).sum())
        summary: dict[str, Any] = {"day": day, "rows": len(rows_of_day), "answered": len(answered)}
        for name, count, total in (("refused", refused, len(rows_of_day)), ("pneumonia", positive, len(answered))):
            low, high = share_interval(count, total)
            summary |= {name: count / total if total else float("nan"), f"{name}_low": low, f"{name}_high": high}
        for name in names:
            values = image_statistic(answered, name)
            finite = values[np.isfinite(values)]
            summary[name] = float(np.median(finite)) if len(finite) else float("nan")
        days.append(summary)
    return pd.DataFrame(days).set_index("day") if days else pd.DataFrame()

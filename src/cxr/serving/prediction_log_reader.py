"""Reads the log of predictions as a table, with the answers of shadows beside those of the versions they shadow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.errors import MissingInputError
from cxr.serving.prediction_log import IMAGES_FOLDER, LOG_SUFFIX, SHADOW_OF

if TYPE_CHECKING:
    import pandas as pd

STATISTIC_PREFIX = "film."
"""Prefix of the columns with statistics of the images, in the table of rows."""
COLUMNS = (
    "id", "time", "version", "alias", "model", "label", "probability", "threshold", "refusal", "width", "height",
)  # fmt: skip
"""Columns of the table of rows, besides the statistics, ``embedding`` and those of a shadow."""
SHADOW_PREFIX = "shadow_"
SHADOW_COLUMNS = tuple(
    f"{SHADOW_PREFIX}{name}" for name in ("version", "alias", "model", "label", "probability", "threshold", "refusal")
)
"""Columns with what a shadow has answered for the same image; missing in a row without such an answer."""


@dataclass(frozen=True)
class LogWindow:
    """The logged predictions of a span of time.

    Attributes:
        rows: one row per prediction, sorted by time: :data:`COLUMNS` and :data:`SHADOW_COLUMNS` (``time`` in UTC; None
            or NaN for a missing value), ``film.NAME`` for each statistic, ``embedding`` (float32 arrays, or None).
        damaged: number of lines that are cut off or no rows.
    """

    rows: pd.DataFrame
    damaged: int


def read_prediction_log(folder: Path, since: datetime, until: datetime) -> LogWindow:
    """Read the predictions of a span of time. Files of other days are not opened.

    Args:
        folder: folder of the log.
        since: start of the span (included), with its time zone.
        until: end of the span (excluded), with its time zone.

    Returns:
        The rows of all processes, and the number of damaged lines.

    Raises:
        MissingInputError: if it is no folder.
    """
    import pandas as pd

    if not folder.is_dir():
        raise MissingInputError(
            f"expected the folder of a prediction log, received log={folder} (no folder); name the folder of "
            "serve.log_predictions"
        )
    rows: list[dict[str, Any]] = []
    shadow_answers: dict[str, dict[str, Any]] = {}
    damaged = 0
    for path in _files_between(folder, since, until):
        with path.open("rb") as lines:
            for line in lines:
                try:
                    entry = _parse_line(line)
                    if SHADOW_OF in entry:
                        shadow_answers[str(entry[SHADOW_OF])] = _shadow_columns(entry)
                    elif since <= (row := _row_columns(entry))["time"] < until:
                        rows.append(row)
                except (ValueError, KeyError, TypeError, AttributeError):
                    damaged += 1
    joined = [{**row, **shadow_answers.get(str(row["id"]), {})} for row in rows]
    table = pd.DataFrame(joined, columns=None if rows else [*COLUMNS, "embedding"])
    first_columns = [*COLUMNS, *SHADOW_COLUMNS]
    table = table.reindex(columns=[*first_columns, *(name for name in table if name not in first_columns)])
    for name in ("probability", "threshold", f"{SHADOW_PREFIX}probability", f"{SHADOW_PREFIX}threshold"):
        table[name] = table[name].astype(np.float64)
    table["time"] = pd.to_datetime(table["time"], utc=True)
    return LogWindow(table.sort_values("time", kind="stable", ignore_index=True), damaged)


def logged_image_path(folder: Path, row_id: str) -> Path | None:
    """Find the logged image of a row.

    Args:
        folder: folder of the log.
        row_id: the row's ``id``.

    Returns:
        Path of its PNG; None if the image was not logged.
    """
    path = folder / IMAGES_FOLDER / f"{row_id}.png"
    return path if path.is_file() else None


def _files_between(folder: Path, since: datetime, until: datetime) -> list[Path]:
    moments = (since, until - timedelta(microseconds=1))
    first_day, last_day = (moment.astimezone(UTC).date().isoformat() for moment in moments)
    paths = folder.glob(f"????-??-??-*{LOG_SUFFIX}")
    return sorted(path for path in paths if first_day <= path.name[:10] <= last_day)


def _parse_line(line: bytes) -> dict[str, Any]:
    """The object of a line; raises ValueError if the line is cut off or holds something else."""
    entry = json.loads(line)
    if not isinstance(entry, dict) or not line.endswith(b"\n"):
        raise ValueError("no whole line")
    return entry


def _row_columns(entry: dict[str, Any]) -> dict[str, Any]:
    """A prediction as a row of the table."""
    time = datetime.fromisoformat(entry["time"]).astimezone(UTC)
    statistics, embedding = entry.get("statistics") or {}, entry.get("embedding")
    values = {name: entry.get(name) for name in COLUMNS}
    columns = {
        f"{STATISTIC_PREFIX}{name}": np.float64(value) for name, value in statistics.items() if value is not None
    }
    point = None if embedding is None else np.asarray(embedding, dtype=np.float32)
    return {**values, "time": time, **columns, "embedding": point}


def _shadow_columns(entry: dict[str, Any]) -> dict[str, Any]:
    """The answer of a shadow as columns of the row that it belongs to."""
    return {name: entry.get(name.removeprefix(SHADOW_PREFIX)) for name in SHADOW_COLUMNS}

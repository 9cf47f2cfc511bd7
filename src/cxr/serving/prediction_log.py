"""The log of predictions for `cxr drift`: JSON lines without file names, tags or, unless asked for, pixels."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import PredictionResult
    from cxr.serving.model_source import ServedModel

log = logging.getLogger(__name__)

IMAGES_FOLDER = "pixels"
"""Folder of the logged images, inside the log's folder."""
LOG_SUFFIX = ".jsonl"
STATISTIC_PREFIX = "film."
"""Prefix of the columns with statistics of the images, in the table of rows."""
COLUMNS = (
    "id", "time", "version", "alias", "model", "label", "probability", "threshold", "refusal", "width", "height",
)  # fmt: skip
"""Columns of the table of rows, besides the statistics and ``embedding``."""
EMBEDDING_DIGITS = 4
"""Significant digits of an embedding in the log."""


def _now() -> datetime:
    return datetime.now(UTC)


class PredictionLog:
    """Appends predictions to a folder. Each process writes a file of its own per day (UTC).

    A prediction never fails because of the log. Rows that cannot be written are counted. The log reports the problem
    once, and again after writing has worked in between.
    """

    def __init__(self, folder: Path, *, keep_images: bool, clock: Callable[[], datetime] = _now) -> None:
        """Create the folder.

        Args:
            folder: where to write; created if it does not exist.
            keep_images: whether to keep the images too, as grey PNG files. They are patient data.
            clock: gives the time, with its time zone.

        Raises:
            ParameterError: if the folder cannot be created.
        """
        self.folder, self.keep_images, self._clock = folder, keep_images, clock
        self._lock = threading.Lock()
        self._process_id, self._file_token = 0, ""
        self._lost_rows, self._failing = 0, False
        try:
            (folder / IMAGES_FOLDER if keep_images else folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"expected a folder for the log of predictions, received log={folder} ({error.strerror})"
            raise ParameterError([f"{problem}; name another one, or null for none"]) from error

    @property
    def lost_rows(self) -> int:
        """Number of predictions of this process that could not be written."""
        return self._lost_rows

    def append(self, served: ServedModel, results: Sequence[PredictionResult], images: Sequence[DecodedImage]) -> None:
        """Write one row per image. Rows that cannot be written are counted; this method raises no OSError.

        Args:
            served: the model that predicted.
            results: its results.
            images: the images, in the same order.
        """
        time = self._clock().astimezone(UTC)
        row_ids = [secrets.token_hex(8) for _ in results]
        rows = [
            _make_row(row_id, time, served, result, image)
            for row_id, result, image in zip(row_ids, results, images, strict=True)
        ]
        data = "".join(f"{json.dumps(row, allow_nan=False, separators=(',', ':'))}\n" for row in rows).encode()
        try:
            with self._lock:
                _append_lines(self._file(time.date()), data)
            if self.keep_images:
                for row_id, image in zip(row_ids, images, strict=True):
                    _write_image(self.folder / IMAGES_FOLDER / f"{row_id}.png", image)
        except OSError as error:
            self._count_lost(len(rows), error)
        else:
            self._failing = False

    def _file(self, day: date) -> Path:
        """The file of this process and day. A forked process gets a file name of its own."""
        if self._process_id != os.getpid():
            self._process_id, self._file_token = os.getpid(), secrets.token_hex(4)
        return self.folder / f"{day.isoformat()}-{self._file_token}{LOG_SUFFIX}"

    def _count_lost(self, rows: int, error: OSError) -> None:
        with self._lock:
            self._lost_rows += rows
            report, self._failing = not self._failing, True
        if report:
            log.warning("predictions are not logged to %s and answers go on: %s", self.folder, error.strerror)


@dataclass(frozen=True)
class LogWindow:
    """The logged predictions of a span of time.

    Attributes:
        rows: one row per prediction, sorted by time: :data:`COLUMNS` (``time`` in UTC; None or NaN for a missing
            value), ``film.NAME`` for each statistic, ``embedding`` (float32 arrays, or None).
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
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    damaged = 0
    for path in _files_between(folder, since, until):
        with path.open("rb") as lines:
            for line in lines:
                row = _parse_row(line)
                if row is None:
                    damaged += 1
                elif since <= row["time"] < until:
                    rows.append(row)
    table = pd.DataFrame(rows, columns=None if rows else [*COLUMNS, "embedding"])
    table = table.reindex(columns=[*COLUMNS, *(name for name in table if name not in COLUMNS)])
    for name in ("probability", "threshold"):
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


def _make_row(
    row_id: str, time: datetime, served: ServedModel, result: PredictionResult, image: DecodedImage
) -> dict[str, Any]:
    prediction, refusal, features = result.prediction, result.refusal, result.features
    height, width = image.grey.shape
    return {
        "id": row_id,
        "time": time.isoformat(timespec="milliseconds"),
        "version": served.version or None,
        "alias": served.alias or None,
        "model": served.metadata.model,
        "label": prediction.label if prediction else None,
        "probability": prediction.probability if prediction else None,
        "threshold": prediction.threshold if prediction else None,
        "refusal": refusal.kind if refusal else None,
        "width": width,
        "height": height,
        "statistics": {name: _shortest(value) for name, value in features.statistics.items()} if features else None,
        "embedding": [_rounded(value) for value in features.embedding] if features else None,
    }


def _shortest(value: float) -> float | None:
    """The shortest decimal number with the same float32: equal values must stay equal. None for NaN."""
    return float(str(np.float32(value))) if np.isfinite(value) else None


def _rounded(value: float) -> float | None:
    """Fewer digits. None for NaN, which JSON does not have."""
    return float(f"{value:.{EMBEDDING_DIGITS}g}") if np.isfinite(value) else None


def _append_lines(path: Path, data: bytes) -> None:
    """Append all of the data or nothing: a part that was written to a full disk is removed again."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(file).st_size
        try:
            written = os.write(file, data)
            while written < len(data):
                written += os.write(file, data[written:])
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def _write_image(path: Path, image: DecodedImage) -> None:
    import cv2

    _, data = cv2.imencode(".png", image.grey)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        with os.fdopen(file, "wb") as target:
            target.write(data.tobytes())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _files_between(folder: Path, since: datetime, until: datetime) -> list[Path]:
    moments = (since, until - timedelta(microseconds=1))
    first_day, last_day = (moment.astimezone(UTC).date().isoformat() for moment in moments)
    paths = folder.glob(f"????-??-??-*{LOG_SUFFIX}")
    return sorted(path for path in paths if first_day <= path.name[:10] <= last_day)


def _parse_row(line: bytes) -> dict[str, Any] | None:
    """A line as a row of the table; None if it is damaged."""
    try:
        entry = json.loads(line)
        time = datetime.fromisoformat(entry["time"]).astimezone(UTC)
        statistics, embedding = entry.get("statistics") or {}, entry.get("embedding")
        values = {name: entry.get(name) for name in COLUMNS}
        columns = {
            f"{STATISTIC_PREFIX}{name}": np.float64(value) for name, value in statistics.items() if value is not None
        }
        point = None if embedding is None else np.asarray(embedding, dtype=np.float32)
        if not line.endswith(b"\n"):
            return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return {**values, "time": time, **columns, "embedding": point}

"""What was answered, kept as lines of JSON for `cxr drift`: no file names, no tags, no pixels unless asked for."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

    from cxr.images.decoding import Picture
    from cxr.inference.answers import Answer
    from cxr.serving.model_provider import Served

log = logging.getLogger(__name__)

PIXELS = "pixels"
"""Folder for pictures inside the log's."""
SUFFIX = ".jsonl"
STATISTIC = "film."
"""Before the names of a film's statistics, as columns of a table of rows."""
COLUMNS = (
    "id", "time", "version", "alias", "model", "label", "probability", "threshold", "refusal", "width", "height",
)  # fmt: skip
"""Columns of a table of rows, besides the statistics and ``embedding``."""
DIGITS = 4
"""Significant digits of an embedding."""


def _now() -> datetime:
    return datetime.now(UTC)


class PredictionLog:
    """Appends answers to a folder: each process has a file per day (UTC), so that none writes into another's.

    An answer never fails because of its log. Rows that could not be written are told once, until writing works
    again, and counted.
    """

    def __init__(self, folder: Path, *, pixels: bool = False, clock: Callable[[], datetime] = _now) -> None:
        """Make the folder.

        Args:
            folder: where to write; made if it isn't there.
            pixels: keep the pictures too, grey, as PNG; they are patient data.
            clock: gives the time, with its zone.

        Raises:
            ParameterError: if the folder cannot be written to.
        """
        self.folder, self.pixels, self._clock = folder, pixels, clock
        self._lock = threading.Lock()
        self._process, self._token = 0, ""
        self._lost, self._failing = 0, False
        try:
            (folder / PIXELS if pixels else folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"expected a folder for the log of predictions, received log={folder} ({error.strerror})"
            raise ParameterError([f"{problem}; name another one, or null for none"]) from error

    @property
    def lost(self) -> int:
        """Answers of this process that could not be written."""
        return self._lost

    def append(self, served: Served, answers: Sequence[Answer], pictures: Sequence[Picture]) -> None:
        """Write one row per answer; what cannot be written is counted, and no error leaves this call.

        Args:
            served: who answered.
            answers: what was answered.
            pictures: what was asked about, in the same order.
        """
        moment = self._clock().astimezone(UTC)
        names = [secrets.token_hex(8) for _ in answers]
        rows = [
            _row(name, moment, served, answer, picture)
            for name, answer, picture in zip(names, answers, pictures, strict=True)
        ]
        data = "".join(f"{json.dumps(row, allow_nan=False, separators=(',', ':'))}\n" for row in rows).encode()
        try:
            with self._lock:
                _append(self._file(moment.date()), data)
            if self.pixels:
                for name, picture in zip(names, pictures, strict=True):
                    _write_picture(self.folder / PIXELS / f"{name}.png", picture)
        except OSError as error:
            self._tell(len(rows), error)
        else:
            self._failing = False

    def _file(self, day: date) -> Path:
        """The file of this process and day; its name is another one in a process that was forked off."""
        if self._process != os.getpid():
            self._process, self._token = os.getpid(), secrets.token_hex(4)
        return self.folder / f"{day.isoformat()}-{self._token}{SUFFIX}"

    def _tell(self, rows: int, error: OSError) -> None:
        with self._lock:
            self._lost += rows
            first, self._failing = not self._failing, True
        if first:
            log.warning("predictions are not logged to %s and answers go on: %s", self.folder, error.strerror)


@dataclass(frozen=True)
class LogWindow:
    """What a log holds of a span of time.

    Attributes:
        rows: one row per answer in order of time: :data:`COLUMNS` (``time`` UTC; text or NaN where there is
            nothing), ``film.NAME`` for each statistic, ``embedding`` (float32 arrays, or None).
        damaged: lines that were cut off, or are no rows.
    """

    rows: pd.DataFrame
    damaged: int


def read_log(folder: Path, since: datetime, until: datetime) -> LogWindow:
    """Read what was logged in a span of time; files of other days are not opened.

    Args:
        folder: the log's folder.
        since: first moment, with its zone.
        until: moment after the last, with its zone.

    Returns:
        The rows of all processes, and how many lines were no rows.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    damaged = 0
    for path in _files(folder, since, until):
        for line in _lines(path):
            row = _read_row(line)
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


def picture_path(folder: Path, name: str) -> Path | None:
    """The kept picture of a row.

    Args:
        folder: the log's folder.
        name: the row's ``id``.

    Returns:
        Its PNG; None if it was not kept.
    """
    path = folder / PIXELS / f"{name}.png"
    return path if path.is_file() else None


def _row(name: str, moment: datetime, served: Served, answer: Answer, picture: Picture) -> dict[str, Any]:
    found, refusal, film = answer.prediction, answer.refusal, answer.film
    height, width = picture.grey.shape
    return {
        "id": name,
        "time": moment.isoformat(timespec="milliseconds"),
        "version": served.version or None,
        "alias": served.alias or None,
        "model": served.card.model,
        "label": found.label if found else None,
        "probability": found.probability if found else None,
        "threshold": found.threshold if found else None,
        "refusal": refusal.kind if refusal else None,
        "width": width,
        "height": height,
        "statistics": {key: _short(value) for key, value in film.statistics.items()} if film else None,
        "embedding": [_rounded(value) for value in film.embedding] if film else None,
    }


def _short(value: float) -> float | None:
    """The float32 in as few digits as name it, so that values equal at training are equal here; None for NaN."""
    return float(str(np.float32(value))) if np.isfinite(value) else None


def _rounded(value: float) -> float | None:
    """Fewer digits; JSON has no word for what isn't a number."""
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None


def _append(path: Path, data: bytes) -> None:
    """Add whole lines or nothing: what fits of them on a full disk is taken back."""
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


def _write_picture(path: Path, picture: Picture) -> None:
    import cv2

    _, data = cv2.imencode(".png", picture.grey)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        with os.fdopen(file, "wb") as target:
            target.write(data.tobytes())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _files(folder: Path, since: datetime, until: datetime) -> list[Path]:
    first, last = (moment.astimezone(UTC).date().isoformat() for moment in (since, until - timedelta(microseconds=1)))
    return sorted(path for path in folder.glob(f"????-??-??-*{SUFFIX}") if first <= path.name[:10] <= last)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _read_row(line: bytes) -> dict[str, Any] | None:
    """A row as the table has it; None if the line is none."""
    try:
        row = json.loads(line)
        moment = datetime.fromisoformat(row["time"]).astimezone(UTC)
        statistics, embedding = row.get("statistics") or {}, row.get("embedding")
        known = {name: row.get(name) for name in COLUMNS}
        films = {f"{STATISTIC}{name}": np.float64(value) for name, value in statistics.items() if value is not None}
        point = None if embedding is None else np.asarray(embedding, dtype=np.float32)
        if not line.endswith(b"\n"):
            return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return {**known, "time": moment, **films, "embedding": point}

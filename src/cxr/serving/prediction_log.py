"""The log of predictions for `cxr drift`: JSON lines without file names, tags or, unless asked for, pixels."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.errors import ParameterError

if TYPE_CHECKING:
    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import PredictionResult
    from cxr.serving.served_model import ServedModel

log = logging.getLogger(__name__)

IMAGES_FOLDER = "pixels"
"""Folder of the logged images, inside the log's folder."""
LOG_SUFFIX = ".jsonl"
SHADOW_OF = "shadow_of"
"""Key of a line with the answer of a shadow: the id of the row that it belongs to."""
EMBEDDING_DIGITS = 4
"""Significant digits of an embedding in the log."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LoggedRow:
    """A row of the log, to which the answer of a shadow can be added later.

    Attributes:
        row_id: its ``id``.
        day: day of its file, UTC.
    """

    row_id: str
    day: date


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
        """Number of answers of this process that could not be written."""
        return self._lost_rows

    def append(
        self, served: ServedModel, results: Sequence[PredictionResult], images: Sequence[DecodedImage]
    ) -> list[LoggedRow]:
        """Write one row per image. Rows that cannot be written are counted; this method raises no OSError.

        Args:
            served: the model that predicted.
            results: its results.
            images: the images, in the same order.

        Returns:
            One row per image, in order, also of those that could not be written.
        """
        time = self._clock().astimezone(UTC)
        row_ids = [secrets.token_hex(8) for _ in results]
        rows = [
            _make_row(row_id, time, served, result, image)
            for row_id, result, image in zip(row_ids, results, images, strict=True)
        ]
        try:
            self._write_rows(time.date(), rows)
            if self.keep_images:
                for row_id, image in zip(row_ids, images, strict=True):
                    _write_image(self.folder / IMAGES_FOLDER / f"{row_id}.png", image)
        except OSError as error:
            self._count_lost(len(rows), error)
        else:
            self._failing = False
        return [LoggedRow(row_id, time.date()) for row_id in row_ids]

    def append_shadow(self, row: LoggedRow, shadow: ServedModel, result: PredictionResult) -> None:
        """Add the answer of a shadow to a row. An answer that cannot be written is counted; this raises no OSError.

        Args:
            row: the row of the version that answered the client.
            shadow: the version that answered unseen.
            result: its result for the same image.
        """
        try:
            self._write_rows(row.day, [{SHADOW_OF: row.row_id, **_answer(shadow, result)}])
        except OSError as error:
            self._count_lost(1, error)
        else:
            self._failing = False

    def _write_rows(self, day: date, rows: Sequence[dict[str, Any]]) -> None:
        data = "".join(f"{json.dumps(row, allow_nan=False, separators=(',', ':'))}\n" for row in rows).encode()
        with self._lock:
            _append_lines(self._file(day), data)

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


def _make_row(
    row_id: str, time: datetime, served: ServedModel, result: PredictionResult, image: DecodedImage
) -> dict[str, Any]:
    features = result.features
    height, width = image.grey.shape
    return {
        "id": row_id,
        "time": time.isoformat(timespec="milliseconds"),
        **_answer(served, result),
        "width": width,
        "height": height,
        "statistics": {name: _shortest(value) for name, value in features.statistics.items()} if features else None,
        "embedding": [_rounded(value) for value in features.embedding] if features else None,
    }


def _answer(served: ServedModel, result: PredictionResult) -> dict[str, Any]:
    prediction, refusal = result.prediction, result.refusal
    return {
        "version": served.version or None,
        "alias": served.alias or None,
        "model": served.metadata.model,
        "label": prediction.label if prediction else None,
        "probability": prediction.probability if prediction else None,
        "threshold": prediction.threshold if prediction else None,
        "refusal": refusal.kind if refusal else None,
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

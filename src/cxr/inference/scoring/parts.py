"""Rows on disk: one small file per part while the work goes on, joined into one table at its end."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxr.files import whole_file
from cxr.inference.scoring.files import File
from cxr.inference.scoring.rows import Row

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("threshold", pa.float64()),
        ("version", pa.string()),
        ("alias", pa.string()),
        ("model", pa.string()),
        pa.field("error", pa.string(), nullable=False),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
"""Columns of the table; what is unknown is null, and ``error`` is empty where there is none."""

FORMATS = (".parquet", ".csv")
_LAYOUT = "1"
"""Part of each part's name: to be changed together with what a part holds."""


class Parts:
    """Parts of a table, named by what they hold: files of the same content and model give the same name.

    So a part that is there is right, and one that belongs to other files, or to another model, is never taken.

    Attributes:
        digest: digest of all files and the model: tables with the same one are the same.
    """

    def __init__(self, folder: Path, files: Sequence[File], model: str, size: int) -> None:
        """Lay out the parts.

        Args:
            folder: where they are kept; made when the first one is written.
            files: all files, in the order of the table.
            model: identity of the model and its operating point.
            size: files per part.
        """
        self._folder, self._files, self._size = folder, files, size
        self._names = tuple(
            f"{number:06d}-{_digest(model, files[start : start + size])}.parquet"
            for number, start in enumerate(range(0, len(files), size))
        )
        self.digest = _digest(model, files)

    def files(self, number: int) -> Sequence[File]:
        """Files of one part.

        Args:
            number: which part.

        Returns:
            The files, in order.
        """
        return self._files[number * self._size : (number + 1) * self._size]

    def missing(self) -> list[int]:
        """Find the parts that are still to be made.

        Returns:
            Their numbers, in order.
        """
        return [number for number, name in enumerate(self._names) if not (self._folder / name).exists()]

    def write(self, number: int, rows: Sequence[Row], columns: Mapping[str, str | None]) -> None:
        """Write one part, whole or not at all.

        Args:
            number: which part.
            rows: its rows, in the order of its files.
            columns: columns that are the same in each row.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([{**asdict(row), **columns} for row in rows], schema=SCHEMA)
        with whole_file(self._folder / self._names[number]) as partial:
            pq.write_table(table, partial)

    def join(self, target: Path) -> dict[str, Any]:
        """Write the table from all parts, one after the other, whole or not at all.

        Args:
            target: a file whose name ends in ``.parquet`` or ``.csv``.

        Returns:
            Figures for people and for :func:`is_written`: ``digest``, ``bytes``, ``images``, ``answered``,
            ``labels``, ``errors`` (kind to number of files) and ``first_errors``.
        """
        labels: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        first: list[str] = []
        with whole_file(target) as partial, _writer(target.suffix, partial) as write:
            for name in self._names:
                table = pq.read_table(self._folder / name, schema=SCHEMA)
                write(table)
                labels.update(label for label in table["label"].to_pylist() if label is not None)
                for path, error in zip(table["path"].to_pylist(), table["error"].to_pylist(), strict=True):
                    if error:
                        errors[error.partition(":")[0]] += 1
                        first += [f"{path}: {error}"] if len(first) < 5 else []
        return {
            "digest": self.digest,
            "bytes": target.stat().st_size,
            "images": len(self._files),
            "answered": labels.total(),
            "labels": dict(labels),
            "errors": dict(errors),
            "first_errors": first,
        }

    def remove(self) -> None:
        """Remove the parts: the table is in place."""
        shutil.rmtree(self._folder, ignore_errors=True)


def is_written(digest: str, target: Path, record: Path) -> bool:
    """Whether a table is there already.

    Args:
        digest: of :class:`Parts`.
        target: the table.
        record: file with what :meth:`Parts.join` returned for it.

    Returns:
        True if it holds the same files, judged by the same model.
    """
    try:
        written = json.loads(record.read_text(encoding="utf-8"))
        return bool(written["digest"] == digest and written["bytes"] == target.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_record(record: Path, values: Mapping[str, Any]) -> None:
    """Keep what is known of a table beside it.

    Args:
        record: the file.
        values: what :meth:`Parts.join` returned, and more.
    """
    with whole_file(record) as partial:
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _digest(model: str, files: Sequence[File]) -> str:
    found = hashlib.sha256(json.dumps([_LAYOUT, model]).encode())
    for file in files:
        found.update(json.dumps([file.path, file.identity]).encode())
    return found.hexdigest()[:32]


@contextmanager
def _writer(suffix: str, path: Path) -> Iterator[Any]:
    """Something to call with each table."""
    if suffix == ".parquet":
        with pq.ParquetWriter(path, SCHEMA) as parquet:
            yield parquet.write_table
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(SCHEMA.names)
        yield lambda table: lines.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))

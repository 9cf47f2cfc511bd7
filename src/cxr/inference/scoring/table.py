"""Tables of predictions: their rows, their parts on disk while scoring goes on, and the file that joins them."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cxr.files import printable_name, read_json, whole_file, write_json
from cxr.images.shards import WHOLE, Shard
from cxr.inference.scoring.sources import TRANSFER, ImageFile

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
        pa.field("warning", pa.string(), nullable=False),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
"""Columns of the table; an unknown value is null, and ``error`` and ``warning`` are empty where there is none."""
_LAYOUT = "2"
"""Enters the name of each part. It must change whenever the content of a part changes its form."""
FIRST_ERRORS = 5
"""Errors that a summary repeats in full."""

ResultT = TypeVar("ResultT")
"""What is known about one file."""


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """The prediction for one file, or why there is none.

    Attributes:
        path: name of the file.
        label: ``"NORMAL"``, ``"PNEUMONIA"`` or ``"UNCERTAIN"``; None without a prediction.
        probability: calibrated probability of pneumonia, 0 to 1; None without a prediction.
        threshold: operating point on the probability, 0 to 1; None without a prediction.
        error: kind of problem or of refusal, and its description; empty if there is none.
        warning: what is unusual about a file that was read: kinds of problem, and their descriptions; empty if nothing.
        sha256: digest of the content; None if it could not be read.
        width: pixels per row; None if the image could not be decoded.
        height: number of rows; None if the image could not be decoded.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    threshold: float | None = None
    error: str = ""
    warning: str = ""
    sha256: str | None = None
    width: int | None = None
    height: int | None = None


class ScoringParts(ABC, Generic[ResultT]):
    """Parts of a table, each in a small file whose name depends on the images and the model.

    So an existing part is always valid, and a part of other images or of another model is never used. Files that did
    not arrive whole (:data:`cxr.inference.scoring.sources.TRANSFER`) have rows with that error, which the next run
    replaces.

    Attributes:
        schema: columns of a part.
        folder: where the parts are kept.
        digest: digest of all files and the model: tables with the same digest are the same.
    """

    schema: ClassVar[pa.Schema]

    def __init__(self, folder: Path, files: Sequence[ImageFile], model: str, size: int, shard: Shard = WHOLE) -> None:
        """Divide the files into parts.

        Args:
            folder: where the parts are kept; created when the first one is written.
            files: all files, in the order of the table.
            model: identity of the model and its operating point.
            size: files per part.
            shard: which of the parts are worked on here.
        """
        self.folder, self._files, self._size, self._shard = folder, files, size, shard
        self._names = tuple(
            f"{number:06d}-{_digest(model, files[start : start + size])}.parquet"
            for number, start in enumerate(range(0, len(files), size))
        )
        self.digest = _digest(model, files)
        self._model_digest = _digest(model, ())

    def side_folder(self, name: str) -> Path:
        """Name a folder beside the parts for files that are written besides the rows; no other model has the same.

        Args:
            name: what the files are.

        Returns:
            The folder, which need not exist.
        """
        return self.folder / f"{name}-{self._model_digest}"

    def files(self, number: int) -> Sequence[ImageFile]:
        """Get the files of one part.

        Args:
            number: index of the part.

        Returns:
            The files, in order.
        """
        return self._files[number * self._size : (number + 1) * self._size]

    def missing(self) -> dict[int, Sequence[ImageFile]]:
        """Find the files of the shard that have no final row yet.

        Returns:
            Index of each part that isn't complete, in order, to those of its files that are still to be read.
        """
        missing: dict[int, Sequence[ImageFile]] = {}
        for number in self._shard.part_of(range(len(self._names))):
            name = self._names[number]
            files = self.files(number)
            if (self.folder / name).exists():
                tables = self._tables_of_files(number)
                files = [file for file, table in zip(files, tables, strict=True) if _did_not_arrive(table)]
            if files:
                missing[number] = files
        return missing

    def write(self, number: int, results: Sequence[ResultT], columns: Mapping[str, str | None]) -> None:
        """Write one part, whole or not at all.

        Args:
            number: index of the part.
            results: what is known about each of its files that :meth:`missing` gave, in their order.
            columns: columns that are the same in each row.
        """
        tables = [
            pa.Table.from_pylist([{**row, **columns} for row in self.rows(result)], schema=self.schema)
            for result in results
        ]
        path = self.folder / self._names[number]
        if path.exists():
            new_tables = iter(tables)
            tables = [next(new_tables) if _did_not_arrive(table) else table for table in self._tables_of_files(number)]
        with whole_file(path) as partial:
            pq.write_table(pa.concat_tables(tables), partial)

    def copy_to(self, folder: Path) -> None:
        """Copy the parts of the shard for the process that joins the parts of all shards.

        Args:
            folder: an existing folder.
        """
        for name in self._shard.part_of(self._names):
            shutil.copyfile(self.folder / name, folder / name)

    def collect(self, shards: Path) -> None:
        """Take the parts that shards wrote; those of other images or of another model stay behind.

        Args:
            shards: folder with one folder for each shard, which :meth:`copy_to` filled.
        """
        for name in self._names:
            for part in shards.glob(f"*/{name}"):
                with whole_file(self.folder / name) as partial:
                    shutil.copyfile(part, partial)

    def _tables_of_files(self, number: int) -> list[pa.Table]:
        """Split a part into the rows of each of its files."""
        table = pq.read_table(self.folder / self._names[number], schema=self.schema)
        bounds = [*self.first_rows(table), table.num_rows]
        return [table.slice(start, end - start) for start, end in pairwise(bounds)]

    def tables(self) -> Iterator[pa.Table]:
        """Read the parts one after the other.

        Yields:
            Tables of :attr:`schema`.
        """
        for name in self._names:
            yield pq.read_table(self.folder / name, schema=self.schema)

    @abstractmethod
    def rows(self, result: ResultT) -> Iterable[Mapping[str, Any]]:
        """Make the rows of one file, without the columns that are the same in each row."""

    @abstractmethod
    def first_rows(self, table: pa.Table) -> Sequence[int]:
        """Find the first row of each file in a part."""

    @abstractmethod
    def join(self, target: Path) -> dict[str, Any]:
        """Write the table from all parts, one after the other, whole or not at all.

        Args:
            target: a file whose name ends in ``.parquet`` or ``.csv``.

        Returns:
            Figures for people and for :func:`is_complete`, among them ``digest`` (None as long as files are missing)
            and ``bytes``.
        """

    def remove(self) -> None:
        """Remove the parts once the table is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


class TableParts(ScoringParts[PredictionRow]):
    """Parts of the table of a classifier's predictions: one row per file."""

    schema = SCHEMA

    def rows(self, result: PredictionRow) -> Iterable[Mapping[str, Any]]:
        """Make the row of one file."""
        return [asdict(result)]

    def first_rows(self, table: pa.Table) -> Sequence[int]:
        """Each file has one row."""
        return range(table.num_rows)

    def join(self, target: Path) -> dict[str, Any]:
        """Write the table from all parts, one after the other, whole or not at all.

        Args:
            target: a file whose name ends in ``.parquet`` or ``.csv``.

        Returns:
            Figures for people and for :func:`is_complete`: ``digest``, ``bytes``, ``images``, ``answered``,
            ``labels``, ``errors`` and ``warnings`` (kind to number of files) and ``first_errors``.
        """
        labels: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        warnings: Counter[str] = Counter()
        first_errors: list[str] = []
        with whole_file(target) as partial, open_writer(target.suffix, partial, self.schema) as write:
            for table in self.tables():
                write(table)
                labels.update(label for label in table["label"].to_pylist() if label is not None)
                warnings.update(kind for text in table["warning"].to_pylist() for kind in problem_kinds(text))
                for path, error in zip(table["path"].to_pylist(), table["error"].to_pylist(), strict=True):
                    if error:
                        errors[error_kind(error)] += 1
                        first_errors += [f"{printable_name(path)}: {error}"] if len(first_errors) < FIRST_ERRORS else []
        return {
            "digest": None if self.missing() else self.digest,
            "bytes": target.stat().st_size,
            "images": len(self._files),
            "answered": labels.total(),
            "labels": dict(labels),
            "errors": dict(errors),
            "warnings": dict(warnings),
            "first_errors": first_errors,
        }


def image_digests(parts: ScoringParts[PredictionRow]) -> Iterator[str | None]:
    """Read the SHA-256 of the files of a table.

    Args:
        parts: the parts of the table.

    Yields:
        The digest of each file, in order; None for one that could not be read.
    """
    for table in parts.tables():
        yield from table["sha256"].to_pylist()


def error_kind(error: str) -> str:
    """Kind of a problem or a refusal, of a text that begins with it, such as ``"truncated: ..."``."""
    return error.partition(":")[0]


def problem_kinds(warning: str) -> list[str]:
    """Kinds of problem in the warning of a file, such as ``"depth_16: ...; other_modality: ..."``."""
    return [error_kind(part) for part in warning.split("; ")] if warning else []


def _did_not_arrive(rows: pa.Table) -> bool:
    return error_kind(rows["error"][0].as_py()) == TRANSFER


def is_complete(digest: str, target: Path, summary: Path) -> bool:
    """Tell whether a table exists already.

    Args:
        digest: digest of the :class:`ScoringParts`.
        target: the table.
        summary: JSON file with what :meth:`ScoringParts.join` returned for it.

    Returns:
        True if the table holds predictions of the same model for the same files.
    """
    try:
        known = json.loads(summary.read_text(encoding="utf-8"))
        return bool(known["digest"] == digest and known["bytes"] == target.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def update_left_out(summary: Path, left_out: Mapping[str, Any]) -> None:
    """Bring the list of files that are left out up to date, where the table of the images is complete already.

    Args:
        summary: JSON file of the table.
        left_out: :attr:`cxr.inference.scoring.sources.ImageSource.left_out_figures`.
    """
    known = read_json(summary)
    if known.get("left_out") != left_out:
        write_json(summary, {**known, "left_out": left_out})


def _digest(model: str, files: Sequence[ImageFile]) -> str:
    digest = hashlib.sha256(json.dumps([_LAYOUT, model]).encode())
    for file in files:
        digest.update(json.dumps([file.path, file.identity]).encode())
    return digest.hexdigest()[:32]


@contextmanager
def open_writer(suffix: str, path: Path, schema: pa.Schema) -> Iterator[Any]:
    """Open a file for tables.

    Args:
        suffix: ``".parquet"``, or anything else for CSV.
        path: the file.
        schema: columns of the tables.

    Yields:
        A function that appends a table to the file.
    """
    if suffix == ".parquet":
        with pq.ParquetWriter(path, schema) as parquet:
            yield parquet.write_table
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(schema.names)
        yield lambda table: lines.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))

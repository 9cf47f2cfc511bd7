"""The rows of a manifest on disk while it is built: memory holds a block of rows, or the column that is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxr.files import whole_file

_GROUP_ROWS = 2**20
"""Rows of a row group of a manifest: as many as pandas writes."""

_BLOCK = 2**16
"""Rows that are read at once."""


class RowFile:
    """Collects rows, and writes them with further columns as a manifest.

    Args:
        folder: folder of the manifest. The temporary file is on its disk; it has no name and ends with the process.
    """

    def __init__(self, folder: Path) -> None:
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()
        self._file.close()

    def append(self, rows: pd.DataFrame) -> None:
        """Add rows; all have the same columns and types."""
        table = pa.Table.from_pandas(rows, preserve_index=False)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def read(self, column: str) -> Iterator[pd.Series[Any]]:
        """Read a column of all rows by block; no more rows can be added."""
        self._finish()
        for batch in pq.ParquetFile(self._file).iter_batches(_BLOCK, columns=[column]):
            yield batch.to_pandas()[column]

    def write(self, file: Path, added: pd.DataFrame, columns: Sequence[str]) -> None:
        """Write the rows with further columns as a Parquet file with checksums, by row group.

        Args:
            file: the file; it appears whole or not at all.
            added: the further columns, one row per row.
            columns: names of all columns, in their order.
        """
        self._finish()
        start, writer = 0, None
        with whole_file(file) as partial:
            try:
                for table in self._row_groups():
                    part = added.iloc[start : start + len(table)].reset_index(drop=True)
                    if writer is None:
                        first = pd.concat([table.slice(0, 1).to_pandas(), part.head(1)], axis=1)[list(columns)]
                        schema = pa.Table.from_pandas(first, preserve_index=False).schema
                        writer = pq.ParquetWriter(partial, schema, write_page_checksum=True)
                    for name in part:
                        table = table.append_column(name, pa.array(part[name]))
                    writer.write_table(table.select(columns).cast(writer.schema), row_group_size=_GROUP_ROWS)
                    start += len(table)
                    del table, part  # before the next ones are read
            finally:
                if writer is not None:
                    writer.close()

    def _row_groups(self) -> Iterator[pa.Table]:
        """Read the rows of each row group of the manifest, with one chunk for each column, and one group at a time."""
        blocks = pq.ParquetFile(self._file).iter_batches(_BLOCK)
        while group := list(islice(blocks, _GROUP_ROWS // _BLOCK)):
            table = pa.Table.from_batches(group)
            group.clear()
            for number, field in enumerate(table.schema):  # by column: a copy of all takes twice the memory
                table = table.set_column(number, field, table.column(number).combine_chunks())
            yield table
            del table

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

"""Tables of the steps as Parquet files, with checksums that are compared when a table is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import DataError, MissingInputError
from cxr.files import REPEAT_STEP

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_LINES = 2**16
"""Lines that are hashed at once."""

_ROWS = 2**14
"""Rows that are turned into a table together."""


def tables_of_rows(rows: Iterable[Mapping[str, object]], dtypes: Mapping[str, str]) -> Iterator[pd.DataFrame]:
    """Turn rows into tables by block, because as Python objects a row takes ten times the memory.

    Args:
        rows: rows with the same columns.
        dtypes: type of each of these columns, and perhaps of others.

    Yields:
        The tables, in the order of the rows.
    """
    import pandas as pd

    remaining = iter(rows)
    while block := list(islice(remaining, _ROWS)):
        yield pd.DataFrame(block).astype({name: dtypes[name] for name in block[0]})


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index; each page of the file carries a checksum.

    Args:
        path: the Parquet file.
        table: the table.
    """
    table.to_parquet(path, index=False, write_page_checksum=True)


def read_table(
    path: Path, columns: Sequence[str] | None = None, where: Sequence[tuple[str, str, str]] = ()
) -> pd.DataFrame:
    """Read a table that a step has written.

    Of 900 files with one changed bit each, 4 were read with other values: their change was in the names and the
    statistics behind the pages, which have no checksum. Files of earlier versions have none at all.

    Args:
        path: the Parquet file.
        columns: names of the columns to read; all if None.
        where: conditions that the rows must meet, each a column, ``=`` or ``!=``, and a text; all rows if there are
            none.

    Returns:
        The table.

    Raises:
        MissingInputError: if there is no such file.
        DataError: if the file is damaged, or has no such columns.
    """
    import pandas as pd

    with _explained(path):
        return pd.read_parquet(
            path,
            columns=None if columns is None else list(columns),
            filters=list(where) or None,
            page_checksum_verification=True,
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of a file that cannot be read what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingInputError(f"expected a table, received {path}, which is not there; {REPEAT_STEP}") from error
    except Exception as error:  # a damaged file raises errors of pyarrow, of its JSON, and of its names
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"expected a whole table, received {path} ({reason}); {REPEAT_STEP}") from error


def table_columns(path: Path) -> list[str]:
    """Read the names of the columns of a table.

    Args:
        path: the Parquet file.

    Returns:
        The names, in their order.

    Raises:
        MissingInputError: if there is no such file.
        DataError: if the file is damaged.
    """
    import pyarrow.parquet as pq

    with _explained(path):
        return list(pq.read_schema(path).names)


def digest_of_lines(table: pd.DataFrame, *, separator: str, ending: str) -> str:
    """Compute a digest of the rows of a table that does not depend on their order.

    Of rows whose lines are sorted, only a block of lines is in memory beside the table. Others are sorted first.

    Args:
        table: columns of text; a missing text counts as an empty one.
        separator: text between the cells of a line.
        ending: text after the last line.

    Returns:
        Hexadecimal sha256 of the sorted lines, with a line break between them.
    """
    import pyarrow.compute as pc

    digest = _digest_if_sorted(table, separator, ending)
    if digest is None:
        order = pc.sort_indices(_join_cells(table, separator)).to_numpy()
        digest = _digest_if_sorted(table.iloc[order], separator, ending)
    return str(digest)


def _digest_if_sorted(table: pd.DataFrame, separator: str, ending: str) -> str | None:
    """Digest of the lines in the order of the rows; None if they are not sorted."""
    import pyarrow.compute as pc

    digest, last = hashlib.sha256(), ""
    for start in range(0, len(table), _LINES):
        lines = _join_cells(table.iloc[start : start + _LINES], separator)
        if lines[0].as_py() < last or pc.any(pc.less(lines[1:], lines[:-1])).as_py():
            return None
        last = lines[-1].as_py()
        digest.update(("\n" if start else "").encode() + "\n".join(lines.to_pylist()).encode())
    digest.update(ending.encode() if len(table) else b"")
    return digest.hexdigest()


def _join_cells(table: pd.DataFrame, separator: str) -> pa.LargeStringArray:
    """Join the cells of each row as Arrow text, which takes the memory of the texts alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.large_string()
    columns = [pa.array(table[name].fillna(""), type=text) for name in table.columns]
    return pc.binary_join_element_wise(*columns, pa.scalar(separator, text))

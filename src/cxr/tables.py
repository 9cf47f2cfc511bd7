"""Tables of the steps as Parquet files, with checksums that are compared when a table is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import DataError, MissingInputError
from cxr.files import REPEAT_STEP

if TYPE_CHECKING:
    import pandas as pd

_LINES = 2**16
"""Lines that are hashed at once."""


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index; each page of the file carries a checksum.

    Args:
        path: the Parquet file.
        table: the table.
    """
    table.to_parquet(path, index=False, write_page_checksum=True)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table that a step has written.

    Of 900 files with one changed bit each, 4 were read with other values: their change was in the names and the
    statistics behind the pages, which have no checksum. Files of earlier versions have none at all.

    Args:
        path: the Parquet file.
        columns: names of the columns to read; all if None.

    Returns:
        The table.

    Raises:
        MissingInputError: if there is no such file.
        DataError: if the file is damaged, or has no such columns.
    """
    import pandas as pd

    try:
        return pd.read_parquet(
            path, columns=None if columns is None else list(columns), page_checksum_verification=True
        )
    except FileNotFoundError as error:
        raise MissingInputError(f"expected a table, received {path}, which is not there; {REPEAT_STEP}") from error
    except Exception as error:  # a damaged file raises errors of pyarrow, of its JSON, and of its names
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"expected a whole table, received {path} ({reason}); {REPEAT_STEP}") from error


def digest_of_lines(table: pd.DataFrame, *, separator: str, ending: str) -> str:
    """Compute a digest of the rows of a table that does not depend on their order.

    The lines are sorted as Arrow text, which takes the memory of the texts alone.

    Args:
        table: columns of text; a missing text counts as an empty one.
        separator: text between the cells of a line.
        ending: text after the last line.

    Returns:
        Hexadecimal sha256 of the sorted lines, with a line break between them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [pa.array(table[name].fillna(""), type=pa.large_string()) for name in table.columns]
    lines = pc.binary_join_element_wise(*columns, pa.scalar(separator, pa.large_string()))
    del columns
    order = pc.sort_indices(lines)
    digest = hashlib.sha256()
    for start in range(0, len(lines), _LINES):
        block = lines.take(order[start : start + _LINES]).to_pylist()
        digest.update(("\n" if start else "").encode() + "\n".join(block).encode())
    digest.update(ending.encode() if len(lines) else b"")
    return digest.hexdigest()

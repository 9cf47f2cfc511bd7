"""Tables of the steps as Parquet files, with checksums that are compared when a table is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import DataError, MissingInputError
from cxr.files import REPEAT_STEP

if TYPE_CHECKING:
    import pandas as pd


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

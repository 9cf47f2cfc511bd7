"""The raw images of a data set by address: a data folder holds an index in place of the images.

The index is a table ``images.parquet`` with one row per image: its name, sha256, size and address. Data sets of any
size then travel as one small file, and each step reads the images that it needs.
"""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from cxr.data.image_cache import NO_IMAGE_CACHE, ImageCache
from cxr.errors import DataError, ImageError, SourceError
from cxr.files import IMAGE_INDEX_FILE
from cxr.images.decoding import read_bytes
from cxr.images.raw_images import RawImages
from cxr.tables import read_table, write_table

if TYPE_CHECKING:
    import pandas as pd

    from cxr.storage.bucket import Bucket

S3, FILE = "s3", "file"
"""Schemes of addresses: ``s3://bucket/key``, and ``file:///folder/name`` for a disk that every reader mounts."""

INDEX_DTYPES: dict[str, str] = {
    "path": "string",
    "sha256": "string",
    "bytes": "int64",
    "md5": "string",
    "address": "string",
    "endpoint_url": "string",
}
"""Columns of the index and their types. Rows are sorted by path. ``endpoint_url`` is missing where the store is the one
of ``AWS_ENDPOINT_URL``, or Amazon's."""


class ImageIndex(RawImages):
    """Images at the addresses of an index; each is checked against its sha256 when it is read."""

    def __init__(self, folder: Path, cache: ImageCache = NO_IMAGE_CACHE) -> None:
        """Read the index; no image is read yet.

        Args:
            folder: the data folder with the index.
            cache: keeps copies of the images that are read.

        Raises:
            DataError: if the index is damaged, lacks a column, or has wrong rows (all kinds are listed).
        """
        self.folder = folder
        table = read_index(folder)
        self._bytes = table["bytes"].to_numpy()
        self._paths, self._sha256, self._addresses, self._endpoints = (
            _as_arrow(table[name]) for name in ("path", "sha256", "address", "endpoint_url")
        )
        self._has_objects = bool(table["address"].str.startswith(f"{S3}:").any())
        self._cache = cache
        self._buckets: dict[tuple[str, str | None], Bucket] = {}
        self._lock = threading.Lock()

    @property
    def workers(self) -> int:
        """More threads than cores where most of the time passes with waiting for an object store."""
        from cxr.storage.connection import MAX_CONNECTIONS

        return max(super().workers, MAX_CONNECTIONS) if self._has_objects else super().workers

    def names(self) -> list[str]:
        """Names of all images."""
        names: list[str] = self._paths.to_pylist()
        return names

    def __contains__(self, name: str) -> bool:
        """Tell whether the index has a row for the image."""
        return self._find(name) is not None

    def read(self, name: str, *, max_bytes: int | None = None) -> bytes:
        """Read an image at its address, or its copy on this machine.

        Raises:
            ImageError: ``unreadable`` if the index has no such image, or ``too_large``.
            SourceError: if it is not at its address as it was indexed, or the place cannot be read.
        """
        row = self._find(name)
        if row is None:
            raise ImageError("unreadable", f"expected an image of {IMAGE_INDEX_FILE}, received {name}")
        size, sha256 = int(self._bytes[row]), self._sha256[row].as_py()
        if max_bytes is not None and size > max_bytes:
            raise ImageError(
                "too_large", f"expected at most {max_bytes} bytes, received bytes={size}; send a smaller image"
            )
        content = self._cache.find(sha256)
        if content is None:
            content = self._read_at_address(row)
            received = hashlib.sha256(content).hexdigest()
            if received != sha256:
                raise self._changed(row, f"sha256={received}")
            self._cache.keep(sha256, content)
        return content

    def size_and_sha256(self, name: str) -> tuple[int, str]:
        """Size and digest that the index states."""
        row = self._find(name)
        return (-1, "") if row is None else (int(self._bytes[row]), self._sha256[row].as_py())

    def known_sha256(self, name: str) -> str | None:
        """The digest that the index states."""
        return self.size_and_sha256(name)[1] or None

    def state(self, name: str) -> str | None:
        """No state is needed, since the digest is known."""
        return None

    def close(self) -> None:
        """Write the copies that are new."""
        self._cache.close()

    def _find(self, name: str) -> int | None:
        """Row of an image. The names are searched in place, because an index of them would take more memory."""
        row = bisect_left(range(len(self._paths)), name, key=lambda row: self._paths[row].as_py())
        return row if row < len(self._paths) and self._paths[row].as_py() == name else None

    def _read_at_address(self, row: int) -> bytes:
        address: str = self._addresses[row].as_py()
        try:
            if address.startswith(f"{FILE}:"):
                return read_bytes(Path(unquote(urlsplit(address).path)))
            return self._read_object(row, address)
        except (FileNotFoundError, ImageError) as error:
            raise self._changed(row, str(error)) from error

    def _read_object(self, row: int, address: str) -> bytes:
        from cxr.storage.bucket import Bucket, StoredObject, split_address

        name, key = split_address(address)
        endpoint_url = self._endpoints[row].as_py()
        with self._lock:
            if (name, endpoint_url) not in self._buckets:
                bucket = Bucket(name, name=f"{S3}://{name}", endpoint_url=endpoint_url)
                self._buckets[name, endpoint_url] = bucket
        return self._buckets[name, endpoint_url].load(StoredObject(key, int(self._bytes[row]), ""))

    def _changed(self, row: int, received: str) -> SourceError:
        return SourceError(
            f"expected {self._paths[row]} at {self._addresses[row]} as it was indexed (sha256={self._sha256[row]}), "
            f"received {received}; put the image back, or run `cxr fetch --refresh true` to index the images anew"
        )


def _as_arrow(column: pd.Series) -> Any:
    """A column of text as an array of Arrow: as Python objects, it would take twice the memory."""
    import pyarrow as pa

    return pa.chunked_array([pa.array(column, type=pa.large_string(), from_pandas=True)]).combine_chunks()


def has_index(folder: Path) -> bool:
    """Tell whether a data folder holds an index in place of the images.

    Args:
        folder: the data folder, which need not exist.

    Returns:
        Whether it does.
    """
    return (folder / IMAGE_INDEX_FILE).is_file()


def write_index(folder: Path, table: pd.DataFrame) -> None:
    """Write an index.

    Args:
        folder: the data folder.
        table: the columns of :data:`INDEX_DTYPES`, in any order of rows.
    """
    table = table[list(INDEX_DTYPES)].astype(INDEX_DTYPES).sort_values("path", ignore_index=True)
    write_table(folder / IMAGE_INDEX_FILE, table)


def read_index(folder: Path) -> pd.DataFrame:
    """Read and check an index.

    Args:
        folder: the data folder.

    Returns:
        The columns of :data:`INDEX_DTYPES`.

    Raises:
        DataError: if it is damaged, lacks a column, or has wrong rows (all kinds are listed).
    """
    from cxr.storage.contents import shorten_list

    path = folder / IMAGE_INDEX_FILE
    remedy = f"move {folder} away and run `cxr fetch` again"
    table = read_table(path)
    if missing := [name for name in INDEX_DTYPES if name not in table]:
        raise DataError(f"expected an index of images, received {path} without the columns {missing}; {remedy}")
    table = table.astype(INDEX_DTYPES)
    names = table["path"].fillna("")
    wrong = {
        "a path outside of the data folder": (names == "") | names.str.contains(r"^/|(?:^|/)\.\.(?:/|$)|\x00"),
        "no sha256": ~table["sha256"].fillna("").str.fullmatch("[0-9a-f]{64}"),
        "no size": table["bytes"] < 0,
        f"an address other than {S3}://bucket/key and {FILE}:///path": ~table["address"]
        .fillna("")
        .str.match(rf"{S3}://[^/]+/.|{FILE}:///"),
    }
    problems = [
        f"{int(rows.sum()):,} with {problem} ({shorten_list(names[rows].tolist())})"
        for problem, rows in wrong.items()
        if rows.any()
    ]
    if not (names.is_monotonic_increasing and names.is_unique):
        problems.append("paths that are repeated or not sorted")
    if problems:
        raise DataError(f"expected an index of images, received {path} with rows: {'; '.join(problems)}; {remedy}")
    return table

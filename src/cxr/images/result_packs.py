"""Keeps results of work on single files between runs, in packs: files that are written once and never changed.

A pack holds the results one behind the other, then a table of their names, places and checksums, then
:data:`_END`. It appears whole or not at all. A result that does not match its checksum, or a pack that cannot be read,
counts as not kept. So the folder can be deleted at any time, and several processes can use it at once.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import mmap
import os
import shutil
import struct
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.files import whole_file

log = logging.getLogger(__name__)

_TABLE_ROW = np.dtype([("name", "S24"), ("offset", "<u8"), ("length", "<u4"), ("crc32", "<u4")])
_END = struct.Struct("<QI4s")
"""Rows of the table, its checksum, and :data:`_MARK`."""
_MARK = b"cxr1"
_PACK_BYTES = 64_000_000
"""Bytes of new results that are collected in memory before a pack is written. A killed run loses at most these."""
_FREE_BYTES = 2_000_000_000
"""Room on the disk that is left to the outputs of the steps."""


class ResultFolder:
    """Results of one kind by their names. It is thread-safe."""

    def __init__(self, folder: Path | None, others: Sequence[Path] = ()) -> None:
        """Open the packs of a folder.

        Args:
            folder: the folder; it need not exist. None keeps nothing.
            others: folders that are only read. What is found in them is kept in ``folder``, too.
        """
        self._folder = folder
        self._packs: Sequence[_Pack] = () if folder is None else tuple(_open_packs(folder))
        self._other_packs = tuple(pack for other in others for pack in _open_packs(other))
        self._new: dict[bytes, bytes] = {}
        self._new_bytes = 0
        self._lock = threading.Lock()

    def find(self, name: str) -> bytes | None:
        """Find a result.

        Args:
            name: its name.

        Returns:
            The bytes that were kept under this name; None if there are none, or if they are damaged.
        """
        short_name = _short_name(name)
        with self._lock:
            result, packs = self._new.get(short_name), self._packs
        if result is not None:
            return result
        result = _find_in(packs, short_name)
        if result is None:
            result = _find_in(self._other_packs, short_name)
            if result is not None:
                self._keep(short_name, result)
        return result

    def keep(self, name: str, content: bytes) -> None:
        """Keep a result.

        Args:
            name: its name.
            content: the result.
        """
        self._keep(_short_name(name), content)

    def _keep(self, short_name: bytes, content: bytes) -> None:
        if self._folder is None:
            return
        with self._lock:
            self._new[short_name] = content
            self._new_bytes += len(content)
            full = self._new if self._new_bytes >= _PACK_BYTES else None
            if full is not None:
                self._new, self._new_bytes = {}, 0
        if full is not None:
            self._write(full)

    def save(self) -> None:
        """Write the new results to disk."""
        with self._lock:
            rest, self._new, self._new_bytes = self._new, {}, 0
        if rest:
            self._write(rest)

    def mark_used_packs(self) -> None:
        """Note on disk which packs were used, so that the others are removed first."""
        for pack in self._packs:
            if pack.used:
                with suppress(OSError):  # another process has removed it, or the disk is for reading only
                    os.utime(pack.path)

    def _write(self, results: dict[bytes, bytes]) -> None:
        """Write a pack; a cache that cannot be written does not stop the work."""
        if self._folder is None:
            return
        path = self._folder / f"{uuid.uuid4().hex}.pack"
        names = sorted(results)
        table = np.zeros(len(names), dtype=_TABLE_ROW)
        offset = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free < _FREE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with whole_file(path) as partial, partial.open("wb") as file:
                for row, name in enumerate(names):
                    content = results[name]
                    table[row] = (name, offset, len(content), zlib.crc32(content, zlib.crc32(name)))
                    offset += file.write(content)
                file.write(table.tobytes())
                file.write(_END.pack(len(names), zlib.crc32(table.tobytes()), _MARK))
        except OSError as error:
            log.warning("%d results are not kept for the next run: %s", len(names), error)
            return
        pack = _Pack.open(path)
        if pack is not None:
            pack.used = True
            with self._lock:
                self._packs = (*self._packs, pack)


class _Pack:
    """One pack, mapped into memory."""

    def __init__(self, path: Path, content: mmap.mmap, table: NDArray[np.void]) -> None:
        self.path = path
        self.used = False
        self._content = content
        self._table = table
        self._names = np.ascontiguousarray(table["name"])

    @classmethod
    def open(cls, path: Path) -> _Pack | None:
        """Open a pack; None if it cannot be read."""
        try:
            with path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            rows, checksum, mark = _END.unpack(content[-_END.size :])
            start = len(content) - _END.size - rows * _TABLE_ROW.itemsize
            if mark != _MARK or start < 0:
                raise ValueError("its end is damaged")
            table = content[start : -_END.size]
            if zlib.crc32(table) != checksum:
                raise ValueError("its table is damaged")
        except (OSError, ValueError, struct.error) as error:
            log.warning("%s: kept results cannot be read and are computed again (%s)", path, error)
            return None
        return cls(path, content, np.frombuffer(table, dtype=_TABLE_ROW))

    def find(self, name: bytes) -> bytes | None:
        """Find the result with a short name; None if there is none, or if it is damaged."""
        row = int(np.searchsorted(self._names, name))
        if row == len(self._names) or self._names[row] != name:
            return None
        _, offset, length, checksum = self._table[row]
        content = self._content[int(offset) : int(offset) + int(length)]
        if zlib.crc32(content, zlib.crc32(name)) != checksum:
            log.warning("%s: a kept result is damaged and is computed again", self.path)
            return None
        self.used = True
        return content


def limit_size(root: Path, max_bytes: int) -> None:
    """Remove packs until the rest fits; those that were used or written last stay.

    Args:
        root: folder whose folders hold the packs.
        max_bytes: largest sum of their sizes.
    """
    packs: list[tuple[float, int, Path]] = []
    for path in root.glob("*/*.pack"):
        with suppress(OSError):  # another process has removed it
            packs.append((path.stat().st_mtime, path.stat().st_size, path))
    size = 0
    for _, pack_bytes, path in sorted(packs, reverse=True):
        size += pack_bytes
        if size > max_bytes:
            with suppress(OSError):
                path.unlink()


def _find_in(packs: Iterable[_Pack], short_name: bytes) -> bytes | None:
    return next((stored for pack in packs if (stored := pack.find(short_name)) is not None), None)


def _open_packs(folder: Path) -> Iterator[_Pack]:
    for path in sorted(folder.glob("[!.]*.pack")):
        pack = _Pack.open(path)
        if pack is not None:
            yield pack


def _short_name(name: str) -> bytes:
    """A name of 24 bytes, whatever the length of the given one."""
    return hashlib.blake2b(os.fsencode(name), digest_size=12).hexdigest().encode()

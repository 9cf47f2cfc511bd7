"""The names of all files of a data set in the memory of their bytes: as Python texts they take three times as much."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator


class FileNames:
    """Names of files, in an order.

    Args:
        names: the names, as ``os.fsdecode`` gives them.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("Q")
        self.extend(names)

    def extend(self, names: Iterable[str]) -> None:
        """Add names at the end."""
        for name in names:
            self._bytes += os.fsencode(name)
            self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, position: int) -> str:
        start = self._ends[position - 1] if position else 0
        return os.fsdecode(bytes(self._bytes[start : self._ends[position]]))

    def __iter__(self) -> Iterator[str]:
        return (self[position] for position in range(len(self)))

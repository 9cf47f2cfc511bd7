"""Shards: parts of the images that are worked on apart, in processes or pods."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TypeVar

from cxr.errors import DataError
from cxr.files import read_json, write_json

Item = TypeVar("Item")

SHARD_FILE = "shard.json"
"""File in the folder of a shard, with its number and the count; a folder of all images has none."""
MAX_SHARDS = 1000
"""Most parts into which the images can be divided."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of a sequence of images, such as ``2/10``.

    A shard is a contiguous range, and the shards in order are the whole sequence. So results of shards are joined by
    writing them one after the other. The sizes of the shards differ by at most one. A shard is empty where there are
    more shards than images.

    Attributes:
        number: number of the shard, from 1.
        count: number of shards.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a shard from its text.

        Args:
            text: such as ``"2/10"``.

        Returns:
            The shard.

        Raises:
            ValueError: if the text is no shard.
        """
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]) <= MAX_SHARDS:
            raise ValueError(f"NUMBER/COUNT with 1 <= NUMBER <= COUNT <= {MAX_SHARDS}, for example 2/10")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read which part a folder holds.

        Args:
            file: the file that :meth:`write` wrote.

        Returns:
            The shard.

        Raises:
            DataError: if the file holds something else.
        """
        content = read_json(file)
        try:
            return cls(**content)
        except TypeError as error:
            raise DataError(f"expected number and count of a shard, received {file} with {content}") from error

    def write(self, folder: Path) -> None:
        """Write into a folder which part it holds.

        Args:
            folder: the folder.
        """
        write_json(folder / SHARD_FILE, asdict(self))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def part_of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Take the items of this shard.

        Args:
            items: all items, in the order that every shard sees.

        Returns:
            A contiguous range of them; empty if there are fewer items than shards.
        """
        start, end = self.bounds(len(items))
        return items[start:end]

    def bounds(self, length: int) -> tuple[int, int]:
        """First position of this shard in a sequence of a length, and the position after its last one."""
        return (self.number - 1) * length // self.count, self.number * length // self.count


WHOLE = Shard(1, 1)
"""All images."""


def all_shards(count: int) -> tuple[Shard, ...]:
    """The shards of a number of shards, in order."""
    return tuple(Shard(number, count) for number in range(1, count + 1))

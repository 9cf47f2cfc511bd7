"""Writes files in torch's old format, without torch and without pickling; also ones that torch would never write."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

BEGINNING = (
    b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b".",
    b"\x80\x02M" + (1001).to_bytes(2, "little") + b".",
    b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.",
)
"""Pickles of the magic number, the version and the machine."""
STORAGES = {"float32": "torch\nFloatStorage\n", "int64": "torch\nLongStorage\n"}


def write_torch_file(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Write arrays as torch 1.5 did; one in another order of memory keeps it, as strides. Returns its sha256."""
    return write_pickles(path, [*BEGINNING, pickle_of_arrays(arrays), pickle_of_keys(arrays)], arrays)


def write_pickles(path: Path, pickles: list[bytes], arrays: Mapping[str, np.ndarray]) -> str:
    """Write pickles and the numbers of arrays behind them. Returns the sha256 of the file."""
    numbers = b"".join(array.size.to_bytes(8, "little") + array.ravel("K").tobytes() for array in arrays.values())
    content = b"".join(pickles) + numbers
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def pickle_of_arrays(arrays: Mapping[str, np.ndarray], strides: Mapping[str, tuple[int, ...]] | None = None) -> bytes:
    """Pickle an ordered dictionary of tensors, whose strides can be wrong, with an attribute as torch writes it."""
    items = b""
    for name, array in arrays.items():
        own_strides = tuple(stride // array.itemsize for stride in array.strides)
        storage = _text("storage") + b"c" + STORAGES[str(array.dtype)].encode() + _text(name) + _text("cpu")
        items += _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + number(array.size) + b"NtQ"
        items += number(0) + _numbers(array.shape) + _numbers((strides or {}).get(name, own_strides))
        items += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u}" + _text("_metadata") + b"}sb."


def pickle_of_keys(arrays: Mapping[str, Any]) -> bytes:
    """Pickle the keys of the storages: the names of the arrays."""
    return b"\x80\x02](" + b"".join(_text(name) for name in arrays) + b"e."


def _text(text: str) -> bytes:
    return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


def number(value: int) -> bytes:
    """Write a number below 2^31."""
    return b"J" + value.to_bytes(4, "little", signed=True)


def _numbers(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(number(value) for value in numbers) + b"t"

"""Reads arrays from torch's old file format (torch 1.5 and older), without torch and without unpickling.

Such a file is five pickles (a magic number, the version of the format, facts about the machine, the arrays by name,
the keys of the storages), and then the numbers of each storage. Unpickling runs whatever a file asks for. Here its
opcodes are only decoded, and followed as far as arrays need them; four names are known, and none of them is imported.
"""

from __future__ import annotations

import hashlib
import math
import pickletools
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.errors import ParameterError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
FORMAT_VERSION = 1001

_ORDERED_DICT = "collections OrderedDict"
_REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
_STORAGE_TYPES: dict[str, np.dtype[Any]] = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}
_NAMES = {_ORDERED_DICT, _REBUILD_TENSOR, *_STORAGE_TYPES}

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_torch_weights(path: Path, sha256: str) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file.

    Args:
        path: the file.
        sha256: hexadecimal digest that the file must have.

    Returns:
        Name to array, float32 or int64, in the order of the file.

    Raises:
        ParameterError: if the file cannot be read, has another digest, or holds anything but arrays.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ParameterError([f"expected a file of weights, received weights={path} ({error.strerror})"]) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ParameterError(
            [f"expected weights with sha256 {sha256}, received weights={path} with {digest}; install its package again"]
        )
    try:
        return _read_arrays(BytesIO(content))
    except (ValueError, TypeError, LookupError) as error:
        raise ParameterError(
            [
                f"expected nothing but arrays in torch's old file format, received weights={path}: {error}; "
                "do not use this file"
            ]
        ) from error


@dataclass(frozen=True)
class _Name:
    """What a pickle asks to import."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """Numbers in a row, which follow the pickles."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides are in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _read_arrays(file: BytesIO) -> dict[str, NDArray[Any]]:
    magic_number, version, machine = (_follow_pickle(file) for _ in range(3))
    _require(magic_number == MAGIC_NUMBER and version == FORMAT_VERSION, "it begins in another way")
    _require(isinstance(machine, dict) and machine.get("little_endian") is True, "its numbers are big-endian")
    tensors, keys = _follow_pickle(file), _follow_pickle(file)
    _require(
        isinstance(tensors, dict)
        and all(isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in tensors.items()),
        "it holds something else",
    )
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    _require(
        all(storages[tensor.storage.key] == tensor.storage for tensor in tensors.values()),
        "two storages have the same key",
    )
    _require(
        isinstance(keys, list) and all(isinstance(key, str) for key in keys) and sorted(keys) == sorted(storages),
        "its storages are not those of its arrays",
    )
    numbers = {key: _read_numbers(file, storages[key]) for key in keys}
    _require(not file.read(1), "it goes on behind its last array")
    return {name: _view(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _follow_pickle(file: BytesIO) -> Any:
    """Follow the opcodes of one pickle, up to its end."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    argument: Any

    def take_from(start: int) -> list[Any]:
        _require(0 <= start <= len(stack), "its stack is empty")
        values = stack[start:]
        del stack[start:]
        return values

    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TUPLES:
            stack.append(tuple(take_from(len(stack) - _TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(take_from(marks.pop())))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "APPENDS":
            values = take_from(marks.pop())
            _require(isinstance(stack[-1], list), "it appends to what is no list")
            stack[-1].extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = take_from(len(stack) - 2 if name == "SETITEM" else marks.pop())
            _require(isinstance(stack[-1], dict), "it sets items of what is no dictionary")
            stack[-1].update(zip(values[::2], values[1::2], strict=True))
        elif name == "GLOBAL":
            _require(argument in _NAMES, f"it asks for {argument.replace(' ', '.')}")
            stack.append(_Name(argument))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, arguments))
        elif name == "BUILD":
            # Attributes of the dictionary: versions of torch's layers. No array depends on them.
            attributes = stack.pop()
            _require(isinstance(attributes, dict) and isinstance(stack[-1], dict), "it changes what is no dictionary")
        else:
            _require(name in ("PROTO", "STOP"), f"it has the opcode {name}")
    _require(len(stack) == 1, "a pickle has no single value")
    return stack[0]


def _call(function: Any, arguments: Any) -> Any:
    """Do what the two functions that a file may ask for would do."""
    if function == _Name(_ORDERED_DICT) and arguments == ():
        return {}
    _require(function == _Name(_REBUILD_TENSOR), "it calls something else")
    # The last two say whether torch computes gradients, and what it calls then.
    storage, offset, shape, strides, _, hooks = arguments
    _require(hooks == {}, "an array has hooks")
    _require(
        isinstance(storage, _Storage)
        and all(isinstance(values, tuple) and len(values) == len(shape) for values in (shape, strides))
        and all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)),
        "an array has no usable shape",
    )
    return _Tensor(storage, offset, shape, strides)


def _storage(persistent_id: Any) -> _Storage:
    """Read what a pickle says about a storage: its kind, type, key, device, number of values, and a view of it."""
    kind, name, key, _, count, view = persistent_id
    _require(
        kind == "storage" and isinstance(name, _Name) and name.text in _STORAGE_TYPES and view is None,
        "a storage is of another kind",
    )
    _require(isinstance(key, str) and type(count) is int and count >= 0, "a storage has no key or size")
    return _Storage(key, _STORAGE_TYPES[name.text], count)


def _read_numbers(file: BytesIO, storage: _Storage) -> NDArray[Any]:
    """Read the numbers of a storage: an eight-byte count, then little-endian values."""
    count = int.from_bytes(file.read(8), "little")
    _require(count == storage.count, f"storage {storage.key} has {count} values, not {storage.count}")
    content = file.read(count * storage.dtype.itemsize)
    _require(len(content) == count * storage.dtype.itemsize, "it ends too early")
    return np.frombuffer(content, storage.dtype)


def _view(tensor: _Tensor, numbers: NDArray[Any]) -> NDArray[Any]:
    steps = (side - 1 for side in tensor.shape)
    last = tensor.offset + sum(step * stride for step, stride in zip(steps, tensor.strides, strict=True))
    # The bounds are what keeps a view inside its storage: NumPy does not check them.
    _require(
        all(side > 0 for side in tensor.shape) and last < len(numbers) and math.prod(tensor.shape) <= len(numbers),
        "an array reaches beyond its storage",
    )
    strides = tuple(stride * numbers.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides).copy()


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)

"""Files of torch give their arrays and nothing else: what a file asks for is never run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxr.errors import ParameterError
from cxr.models.torch_weights import read_torch_weights
from support.torch_files import BEGINNING, number, pickle_of_arrays, pickle_of_keys, write_pickles, write_torch_file

GENERATOR = np.random.default_rng(3)
ARRAYS = {
    "kernel": GENERATOR.random((2, 3, 5, 4), dtype=np.float32).transpose(3, 1, 0, 2),
    "bias": GENERATOR.random(4, dtype=np.float32),
    "batches": np.array(7, np.int64),
}
PICKLES = [*BEGINNING, pickle_of_arrays(ARRAYS), pickle_of_keys(ARRAYS)]


def test_arrays_come_back_in_the_order_of_the_file(tmp_path):
    arrays = read_torch_weights(tmp_path / "w.pth", write_torch_file(tmp_path / "w.pth", ARRAYS))
    assert [*arrays] == [*ARRAYS]
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("position", range(5))
def test_a_file_that_would_run_a_command_is_refused_before_it_runs(tmp_path, position):
    proof = tmp_path / "ran"
    command = f"touch {proof}".encode()
    pickles = [*PICKLES]
    pickles[position] = b"\x80\x02cposix\nsystem\n(X" + len(command).to_bytes(4, "little") + command + b"tR."
    path = tmp_path / "w.pth"
    digest = write_pickles(path, pickles, ARRAYS)
    with pytest.raises(ParameterError, match=r"expected nothing but arrays.*it asks for posix\.system; do not use"):
        read_torch_weights(path, digest)
    assert not proof.exists()
    unpickle = f"import pickle; file = open({str(path)!r}, 'rb'); [pickle.load(file) for _ in range({position + 1})]"
    if position < 3:  # behind the third, plain unpickling fails at torch's storages
        subprocess.run([sys.executable, "-c", unpickle], check=True, timeout=60)
        assert proof.exists(), "the file does no harm to a reader that unpickles: the test shows nothing"


@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "SHORT_BINUNICODE"),
        (b"\x80\x04X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93.", "STACK_GLOBAL"),
        (b"(X\x04\x00\x00\x00trueiposix\nsystem\n.", "INST"),
        (b"\x82\x01.", "EXT1"),
        (b"ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"ctorch\nFloatStorage\n)R.", "it calls something else"),
        (b"ccollections\nOrderedDict\n(K\x01tR.", "it calls something else"),
        (b"ccollections\nOrderedDict\n}b.", "it changes what is no dictionary"),
        (b"X\x01\x00\x00\x00aQ.", "values to unpack"),
        (b"}X\x01\x00\x00\x00aK\x01s.", "it holds something else"),
        (b"K\x01K\x02.", "no single value"),
        (b"R.", "pop from empty list"),
    ],
)
def test_whatever_arrays_do_not_need_is_refused(tmp_path, pickle, message):
    path = tmp_path / "w.pth"
    digest = write_pickles(path, [*PICKLES[:3], pickle, PICKLES[4]], ARRAYS)
    with pytest.raises(ParameterError, match=rf"received weights=.*w\.pth: .*{message}"):
        read_torch_weights(path, digest)


@pytest.mark.parametrize("strides", [(60, 20, 5, 1), (0, 0, 0, 2**31 - 1), (-1, 1, 1, 1), (1, 1, 1)])
def test_an_array_never_reaches_beyond_its_storage(tmp_path, strides):
    path = tmp_path / "w.pth"
    digest = write_pickles(path, [*PICKLES[:3], pickle_of_arrays(ARRAYS, {"kernel": strides}), PICKLES[4]], ARRAYS)
    with pytest.raises(ParameterError, match=r"beyond its storage|no usable shape"):
        read_torch_weights(path, digest)


def test_an_array_is_no_larger_than_its_storage(tmp_path):
    """With strides of 0, a few bytes could ask for all memory."""
    array = np.broadcast_to(np.float32(1), (3000, 3000))
    path = tmp_path / "w.pth"
    single = {"a": np.ones(1, np.float32)}
    pickles = [
        *PICKLES[:3],
        pickle_of_arrays({"a": array}).replace(number(9_000_000), number(1)),
        pickle_of_keys(single),
    ]
    digest = write_pickles(path, pickles, single)
    with pytest.raises(ParameterError, match="beyond its storage"):
        read_torch_weights(path, digest)


def test_another_file_is_refused_by_its_digest(tmp_path):
    path = tmp_path / "w.pth"
    digest = write_torch_file(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ParameterError, match=f"expected weights with sha256 {digest}, received weights=.*install its"):
        read_torch_weights(path, digest)


def test_a_missing_file_is_a_parameter_error(tmp_path):
    with pytest.raises(ParameterError, match=r"absent\.pth \(No such file"):
        read_torch_weights(tmp_path / "absent.pth", "")


def test_a_file_that_ends_anywhere_or_goes_on_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    write_torch_file(path, ARRAYS)
    content = path.read_bytes()
    for damaged in [*(content[:length] for length in range(len(content))), content + b"\0"]:
        path.write_bytes(damaged)
        with pytest.raises(ParameterError, match="expected nothing but arrays"):
            read_torch_weights(path, hashlib.sha256(damaged).hexdigest())


@pytest.mark.filterwarnings("ignore:.*escape sequence:DeprecationWarning")
@pytest.mark.parametrize("seed", [8])
def test_a_damaged_file_gives_arrays_or_a_parameter_error(tmp_path, seed):
    generator = np.random.default_rng(seed)
    path = tmp_path / "w.pth"
    write_torch_file(path, ARRAYS)
    content = path.read_bytes()
    refused = 0
    for _ in range(1000):
        damaged = bytearray(content)
        for position in generator.integers(len(content), size=generator.integers(1, 4)):
            damaged[position] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            arrays = read_torch_weights(path, hashlib.sha256(damaged).hexdigest())
        except ParameterError:
            refused += 1
        else:
            assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert 300 < refused < 1000


def test_two_storages_of_the_same_key_are_refused(tmp_path):
    arrays = {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)}
    pickle = pickle_of_arrays(arrays)
    storage = b"FloatStorage\nX\x01\x00\x00\x00"
    assert pickle.count(storage + b"b") == 1
    path = Path(tmp_path / "w.pth")
    digest = write_pickles(path, [*PICKLES[:3], pickle.replace(storage + b"b", storage + b"a"), PICKLES[4]], arrays)
    with pytest.raises(ParameterError, match="two storages have the same key"):
        read_torch_weights(path, digest)

"""Tables and JSON files of the steps: damage is a sentence that names the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr import tables
from cxr.errors import DataError, MissingInputError
from cxr.files import read_json, write_json
from cxr.tables import digest_of_lines, read_table, write_table


def draw_table() -> pd.DataFrame:
    probabilities = np.random.default_rng(0).random(300)
    return pd.DataFrame({"path": [f"{number}.jpeg" for number in range(300)], "probability": probabilities})


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_table(tmp_path / "table.parquet", draw_table())
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.parquet"), draw_table())
    assert list(read_table(tmp_path / "table.parquet", ["path"])) == ["path"]


@pytest.mark.parametrize("lines_at_once", [2, 100])
def test_the_digest_of_lines_is_that_of_the_sorted_text(lines_at_once: int, monkeypatch) -> None:
    monkeypatch.setattr(tables, "_LINES", lines_at_once)
    paths = ["b", "a é", "a", "ab", "𝔸", "\uffee"]
    table = pd.DataFrame({"path": paths, "digest": ["1", None, "3", "4", "5", "6"]})
    text = "".join(
        sorted(f"{path}\0{digest}\n" for path, digest in zip(paths, table["digest"].fillna(""), strict=True))
    )
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert digest_of_lines(table, separator="\0", ending="\n") == expected
    assert digest_of_lines(table[::-1], separator="\0", ending="\n") == expected
    assert digest_of_lines(table, separator="\0", ending="") != expected


def test_a_changed_value_is_found_by_its_checksum(tmp_path: Path) -> None:
    path, table = tmp_path / "table.parquet", draw_table()
    write_table(path, table)
    content, value = path.read_bytes(), np.float64(table.probability[7]).tobytes()
    assert content.count(value) == 1
    changed = np.float64(0.5).tobytes()
    path.write_bytes(content.replace(value, changed))
    assert pd.read_parquet(path).probability[7] == 0.5
    with pytest.raises(
        DataError, match=r"expected a whole table, received .*table\.parquet \(.*; restore it from a copy"
    ):
        read_table(path)


def test_no_changed_bit_causes_another_error(tmp_path: Path) -> None:
    path, table = tmp_path / "table.parquet", draw_table()
    write_table(path, table)
    content, refused = path.read_bytes(), 0
    generator = np.random.default_rng(1)
    for position in generator.integers(len(content), size=150):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            read_table(path)
        except DataError:
            refused += 1
    assert refused > 100


def test_a_table_that_is_not_there_or_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    with pytest.raises(MissingInputError, match=r"received .*table\.parquet, which is not there"):
        read_table(path)
    write_table(path, draw_table())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="expected a whole table"):
        read_table(path)
    write_table(path, draw_table())
    with pytest.raises(DataError, match=r"received .*table\.parquet \(.*label"):
        read_table(path, ["label"])


@pytest.mark.parametrize("content", [b'{"digest": "a"', b"[1]", b'{"digest": "\xff"}', b""])
def test_a_damaged_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"digest": "a"})
    assert read_json(path) == {"digest": "a"}
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"expected (JSON|a JSON object), received .*summary\.json.*; restore it from a copy"
    ):
        read_json(path)

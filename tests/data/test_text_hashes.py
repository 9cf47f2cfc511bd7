"""Texts of long columns are found and compared by hashes."""

from __future__ import annotations

import pandas as pd

from cxr.data.text_hashes import are_known, are_repeated, find_rows, hash_texts, number_texts


def texts(*values: str | None) -> pd.Series:
    return pd.Series(values, dtype="string")


def test_each_row_of_a_repeated_text_is_found() -> None:
    assert are_repeated(hash_texts(texts("b", "a", "b", "c", "b", "a"))).tolist() == [
        True,
        True,
        True,
        False,
        True,
        True,
    ]
    assert are_repeated(hash_texts(texts("a"))).tolist() == [False]
    assert are_repeated(hash_texts(texts())).tolist() == []


def test_an_empty_and_a_missing_text_are_unknown() -> None:
    assert are_known(texts("a", "", None)).tolist() == [True, False, False]
    assert are_known(pd.Series(["a", "", None], dtype=object)).tolist() == [True, False, False]


def test_the_rows_of_texts_are_found_in_any_order() -> None:
    column = texts("c", "a", "b")
    assert find_rows(column, texts("a", "c", "x", "a")).tolist() == [1, 0, -1, 1]
    assert find_rows(column, texts("c", "a", "b")).tolist() == [0, 1, 2]
    assert find_rows(column, texts("c", "a", None)).tolist() == [0, 1, -1]
    assert find_rows(texts(), texts("a")).tolist() == [-1]
    assert find_rows(column, texts()).tolist() == []


def test_equal_texts_have_one_number_each() -> None:
    numbers = number_texts(texts("b", "a", "b", "c", "a"))
    assert sorted(set(numbers.tolist())) == [0, 1, 2]
    assert numbers[0] == numbers[2] != numbers[1] == numbers[4] != numbers[3] != numbers[0]
    assert number_texts(texts()).tolist() == []

"""Compares the texts of long columns by hashes: 8 bytes of memory for a row, and none for copies of the texts.

Ten million different texts share a hash once in 400,000 columns. Where that must not matter, rows with equal hashes are
compared as text, too.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_BLOCK = 2**16
"""Texts that are hashed at once."""


def hash_texts(texts: pd.Series) -> Hashes:
    """Hash the text of each row.

    Args:
        texts: ``n`` texts or missing values.

    Returns:
        uint64 ``(n,)``.
    """
    hashes = np.empty(len(texts), dtype=np.uint64)
    for start in range(0, len(texts), _BLOCK):
        hashes[start : start + _BLOCK] = pd.util.hash_array(texts.iloc[start : start + _BLOCK].to_numpy(object))
    return hashes


def are_known(texts: pd.Series) -> NDArray[np.bool_]:
    """Tell which rows have a text.

    Args:
        texts: ``n`` texts or missing values.

    Returns:
        bool ``(n,)``; False for ``""`` and a missing value.
    """
    return (texts.notna() & (texts != "")).to_numpy(dtype=bool, na_value=False)


def are_repeated(hashes: Hashes) -> NDArray[np.bool_]:
    """Tell which hashes occur more than once.

    Args:
        hashes: uint64 ``(n,)``.

    Returns:
        bool ``(n,)``.
    """
    order = np.argsort(hashes)
    in_order = hashes[order]
    is_equal = np.zeros(len(hashes) + 1, dtype=bool)
    is_equal[1:-1] = in_order[1:] == in_order[:-1]
    is_repeated = np.empty(len(hashes), dtype=bool)
    is_repeated[order] = is_equal[1:] | is_equal[:-1]
    return is_repeated


def number_texts(texts: pd.Series) -> NDArray[np.int32]:
    """Number different texts by their hashes, which takes a third of the memory of numbering the texts.

    Args:
        texts: ``n`` texts.

    Returns:
        int32 ``(n,)``: the same number for the same text, from 0.
    """
    hashes = hash_texts(texts)
    order = np.argsort(hashes)
    in_order = hashes[order]
    del hashes
    is_new = np.zeros(len(order), dtype=bool)
    is_new[1:] = in_order[1:] != in_order[:-1]
    del in_order
    numbers = np.empty(len(order), dtype=np.int32)
    numbers[order] = np.cumsum(is_new, dtype=np.int32)
    return numbers


def find_rows(texts: pd.Series, sought: pd.Series) -> NDArray[np.int64]:
    """Find the row of each text that is sought.

    Args:
        texts: ``n`` different texts.
        sought: ``m`` texts.

    Returns:
        int64 ``(m,)``: position in ``texts``; -1 for a text that is not there.
    """
    if texts.array.equals(sought.array):
        return np.arange(len(texts))  # the usual case needs no search
    hashes, sought_hashes = hash_texts(texts), hash_texts(sought)
    if not len(hashes):
        return np.full(len(sought), -1)
    order = np.argsort(hashes)
    place = np.searchsorted(hashes, sought_hashes, sorter=order)
    rows = order[np.minimum(place, len(hashes) - 1, out=place)]
    del order, place
    rows[hashes[rows] != sought_hashes] = -1
    return rows

"""Groups of items that belong together: copies of one image, and patients that share an image."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxr.data.text_hashes import are_known, are_repeated, hash_texts

Numbers = NDArray[np.int32] | NDArray[np.int64]
"""Numbers of groups or values, one per row; -1 for a row without one."""


def connect_pairs(count: int, pairs: ArrayLike) -> NDArray[np.int64]:
    """Join items into groups so that the two items of every pair are in one group.

    Args:
        count: number of items.
        pairs: ``(pairs, 2)``: positions that belong together.

    Returns:
        int64 ``(count,)``: for each item the smallest position in its group.
    """
    group_of = np.arange(count)
    items, numbers = np.unique(np.asarray(pairs, dtype=np.int64), return_inverse=True)
    if len(items):
        first, second = numbers.reshape(-1, 2).T
        graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(len(items), len(items)))
        _, groups = connected_components(graph, directed=False)
        _, smallest = np.unique(groups, return_index=True)
        group_of[items] = items[smallest[groups]]
    return group_of


def count_rows(group: Numbers, is_counted: NDArray[np.bool_] | None = None) -> pd.arrays.IntegerArray:
    """Count the rows in the group of each row.

    Args:
        group: ``(rows,)``, number of the group; -1 for a row without one.
        is_counted: bool ``(rows,)``, which rows count; all if None.

    Returns:
        Int64 ``(rows,)``; unknown for a row without a group.
    """
    counted = group >= 0 if is_counted is None else (group >= 0) & is_counted
    return _counts_of_rows(group[counted], group)


def count_different(group: Numbers, value: Numbers) -> pd.arrays.IntegerArray:
    """Count the different values in the group of each row.

    Args:
        group: ``(rows,)``, number of the group; -1 for a row without one.
        value: ``(rows,)``, number of the value; -1 for a row without one, which does not count.

    Returns:
        Int64 ``(rows,)``; unknown for a row without a group.
    """
    counted = (group >= 0) & (value >= 0)
    values = int(value.max(initial=0)) + 1
    pairs = group[counted] * np.int64(values) + value[counted]
    pairs.sort()
    is_new = np.ones(len(pairs), dtype=bool)
    is_new[1:] = pairs[1:] != pairs[:-1]
    return _counts_of_rows(pairs[is_new] // values, group)


def patient_groups(manifest: pd.DataFrame) -> pd.Series:
    """Unite patients that share an image.

    Args:
        manifest: rows with the columns patient (typed key), sha256 and duplicate_group (``""`` for none).

    Returns:
        For each row the smallest patient key of its group, with the manifest's index.
    """
    pairs = []
    for column in ("sha256", "duplicate_group"):
        rows = np.flatnonzero(are_known(manifest[column]) & are_known(manifest["patient"]))
        rows = rows[are_repeated(hash_texts(manifest[column])[rows])]
        patients = manifest["patient"].iloc[rows].reset_index(drop=True)
        shared = manifest[column].iloc[rows].reset_index(drop=True)
        pairs.append(pd.DataFrame({"first": patients.groupby(shared).transform("first"), "patient": patients}))
    united = pd.concat(pairs, ignore_index=True)
    # Only patients that share an image are sorted: to number all patients takes a gigabyte for ten million images.
    codes, keys = pd.factorize(pd.concat([united["first"], united["patient"]]), sort=True)
    smallest = pd.Series(keys[connect_pairs(len(keys), codes.reshape(2, -1).T)], index=keys)
    smallest = smallest[smallest != smallest.index]
    groups = manifest["patient"].copy()
    is_renamed = groups.isin(smallest.index).to_numpy(dtype=bool)
    if is_renamed.any():
        groups[is_renamed] = groups[is_renamed].map(smallest)
    return groups


def _counts_of_rows(counted: Numbers, group: Numbers) -> pd.arrays.IntegerArray:
    """How often the group of each row is among the counted ones."""
    counts = np.bincount(counted, minlength=int(group.max(initial=0)) + 1)
    return pd.arrays.IntegerArray(counts[group].astype(np.int64), group < 0)

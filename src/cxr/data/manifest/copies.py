"""Counts how often the images and patients of a manifest occur: copies, groups of one image, what differs in them.

A column of texts is read by block and turned into numbers at once: a number takes 4 or 8 bytes of memory for a row, and
a digest as text 72.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cxr.data.grouping import Numbers, connect_pairs, count_different, count_rows
from cxr.data.manifest.hash_neighbours import Codes, read_codes

_DIGEST_CODES = 4
"""Codes of 64 bits in a digest. The first one names a group, in 16 hexadecimal digits."""

PairFinder = Callable[[Codes, Callable[[int], NDArray[np.uint8]]], list[tuple[int, int]]]
"""Perceptual hashes as numbers, and the image of a position, to pairs that show the same image."""


def count_copies(
    column: Callable[[str], Iterable[pd.Series[str]]],
    find_pairs: PairFinder,
    load: Callable[[int], NDArray[np.uint8]],
) -> pd.DataFrame:
    """Count how often a content occurs, name the groups of files that show one image, and count what differs in each.

    Args:
        column: reads a column of the manifest by block: sha256, phash, label, patient or official_split.
        find_pairs: finds pairs among the different contents; see
            :func:`cxr.data.manifest.duplicates.find_near_duplicates`.
        load: gives the grey image, uint8 ``(height, width)``, of a row.

    Returns:
        The columns ``copies``, ``labels_of_hash``, ``near_group``, ``duplicate_group``, ``labels_of_group`` and
        ``splits_of_patient``, one row per row.
    """
    content, names = _number_digests(column("sha256"))
    image_of = _images_of_contents(column("phash"), content, len(names), find_pairs, load)
    image = np.where(content < 0, np.int32(-1), image_of[content]) if len(names) else content
    del image_of
    label = _number_texts(column("label"))
    added = {
        "copies": count_rows(content),
        "labels_of_hash": count_different(content, label),
        "near_group": _name_groups("near-", image, names, count_different(image, content)),
        "duplicate_group": _name_groups("same-", image, names, count_rows(image)),
        "labels_of_group": count_different(image, label),
    }
    del content, image, label, names
    patient, split = _number_texts(column("patient")), _number_texts(column("official_split"))
    return pd.DataFrame({**added, "splits_of_patient": count_different(patient, split)}, copy=False)


def _number_digests(blocks: Iterable[pd.Series[str]]) -> tuple[Numbers, Codes]:
    """Number digests in their order, -1 for none; gives the numbers of the rows, and the first code of each number."""
    is_known, codes = _read_codes(blocks)
    digests = codes.reshape(-1, _DIGEST_CODES)
    order = np.lexsort(digests.T[::-1])
    is_new = np.zeros(len(order), dtype=bool)
    is_new[:1] = True
    for code in digests.T:
        in_order = code[order]
        is_new[1:] |= in_order[1:] != in_order[:-1]
    content = np.full(len(is_known), -1, dtype=np.int32)
    content[np.flatnonzero(is_known)[order]] = np.cumsum(is_new, dtype=np.int32) - 1
    return content, digests[order[is_new], 0]


def _images_of_contents(
    hashes: Iterable[pd.Series[str]],
    content: Numbers,
    contents: int,
    find_pairs: PairFinder,
    load: Callable[[int], NDArray[np.uint8]],
) -> NDArray[np.int32]:
    """For each content the smallest one that shows the same image."""
    is_known, codes = _read_codes(hashes)
    first = np.full(contents, -1, dtype=np.int64)
    rows = np.flatnonzero(is_known & (content >= 0))[::-1]
    first[content[rows]] = rows  # the last row in this order stays, which is the first one of the content
    hashed = np.flatnonzero(first >= 0)
    position = first[hashed]
    codes = codes[np.searchsorted(np.flatnonzero(is_known), position)]
    pairs = find_pairs(codes, lambda number: load(int(position[number])))
    # A group is named after its smallest digest, so that its name depends on no path and no order.
    image_of = np.arange(contents, dtype=np.int32)
    image_of[hashed] = hashed[connect_pairs(len(hashed), pairs)]
    return image_of


def _read_codes(blocks: Iterable[pd.Series[str]]) -> tuple[NDArray[np.bool_], Codes]:
    """Tell which rows have a hexadecimal text, and read those texts as codes."""
    known, codes = [np.empty(0, dtype=bool)], [np.empty(0, dtype=np.uint64)]
    for block in blocks:
        known.append((block.fillna("") != "").to_numpy(dtype=bool))
        codes.append(read_codes(block[known[-1]]))
    return np.concatenate(known), np.concatenate(codes)


def _number_texts(blocks: Iterable[pd.Series[str]]) -> Numbers:
    """Number different texts, -1 for none."""
    texts = pa.chunked_array([pa.array(block.mask(block == ""), pa.large_string()) for block in blocks])
    chunks = texts.dictionary_encode().chunks
    return np.concatenate([np.empty(0, dtype=np.int32), *(chunk.indices.fill_null(-1).to_numpy() for chunk in chunks)])


def _name_groups(prefix: str, image: Numbers, names: Codes, members: pd.arrays.IntegerArray) -> pd.Series[str]:
    """Name of the group of each row, ``""`` for a group of one."""
    is_repeated = members.to_numpy(dtype=np.int64, na_value=0) > 1
    groups, numbers = np.unique(image[is_repeated], return_inverse=True)
    group = np.zeros(len(image), dtype=np.int64)
    group[is_repeated] = numbers + 1
    texts = ["", *(f"{prefix}{code:016x}" for code in names[groups].tolist())]
    return pd.Series(pd.array(texts, dtype="string").take(group))

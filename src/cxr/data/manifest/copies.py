"""Counts how often the images and patients of a manifest occur: copies, groups of one image, what differs in them.

Texts are turned into numbers first. An array of numbers takes 8 bytes of memory for a row, and one of texts ten times
as many.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.grouping import connect_pairs, count_different, count_rows
from cxr.data.manifest.hash_neighbours import Codes, read_codes

NAME_LENGTH = 16
"""Digits of a digest in the name of a group."""

_DIGEST_BYTES = 32
_BLOCK = 2**16
"""Digests that are read at once."""

PairFinder = Callable[[Codes, Callable[[int], NDArray[np.uint8]]], list[tuple[int, int]]]
"""Perceptual hashes as numbers, and the image of a position, to pairs that show the same image."""


def count_copies(
    column: Callable[[str], pd.Series[str]], find_pairs: PairFinder, load: Callable[[int], NDArray[np.uint8]]
) -> pd.DataFrame:
    """Count how often a content occurs, name the groups of files that show one image, and count what differs in each.

    Args:
        column: reads a column of the manifest: sha256, phash, label, patient or official_split, one at a time.
        find_pairs: finds pairs among the different contents; see
            :func:`cxr.data.manifest.duplicates.find_near_duplicates`.
        load: gives the grey image, uint8 ``(height, width)``, of a row.

    Returns:
        The columns ``copies``, ``labels_of_hash``, ``near_group``, ``duplicate_group``, ``labels_of_group`` and
        ``splits_of_patient``, one row per row.
    """
    content, digests = _number_digests(column("sha256"))
    phash = column("phash")
    with_hash = np.flatnonzero((phash != "").to_numpy(dtype=bool) & (content >= 0))
    hashed, first = np.unique(content[with_hash], return_index=True)
    position = with_hash[first]
    codes = read_codes(phash.iloc[position])
    del phash, with_hash, first
    pairs = find_pairs(codes, lambda number: load(int(position[number])))
    # A group is named after its smallest digest, so that its name depends on no path and no order.
    image_of = np.arange(len(digests))
    image_of[hashed] = hashed[connect_pairs(len(hashed), pairs)]
    image = np.where(content < 0, -1, image_of[content]) if len(digests) else content
    labels, patient, split = (_number_texts(column(name)) for name in ("label", "patient", "official_split"))
    return pd.DataFrame(
        {
            "copies": count_rows(content),
            "labels_of_hash": count_different(content, labels),
            "near_group": _name_groups("near-", image, digests, count_different(image, content)),
            "duplicate_group": _name_groups("same-", image, digests, count_rows(image)),
            "labels_of_group": count_different(image, labels),
            "splits_of_patient": count_different(patient, split),
        }
    )


def _number_digests(sha256: pd.Series[str]) -> tuple[NDArray[np.int64], NDArray[np.bytes_]]:
    """Number digests in their order, -1 for none; gives the numbers and the different digests, in 32 bytes each."""
    known = sha256.notna().to_numpy(dtype=bool)
    texts = sha256[known]
    digests = np.empty(len(texts), dtype="S32")
    for start in range(0, len(texts), _BLOCK):
        block = "".join(texts.iloc[start : start + _BLOCK])
        digests[start : start + _BLOCK] = np.frombuffer(bytes.fromhex(block), dtype="S32")
    different, numbers = np.unique(digests, return_inverse=True)
    content = np.full(len(sha256), -1, dtype=np.int64)
    content[known] = numbers
    return content, different


def _number_texts(texts: pd.Series[str]) -> NDArray[np.int64]:
    """Number different texts, -1 for none."""
    numbers, _ = pd.factorize(texts.mask(texts == ""))
    return numbers


def _name_groups(
    prefix: str, image: NDArray[np.int64], digests: NDArray[np.bytes_], members: pd.arrays.IntegerArray
) -> pd.Series[str]:
    """Name of the group of each row, ``""`` for a group of one."""
    is_repeated = np.flatnonzero(members.to_numpy(dtype=np.int64, na_value=0) > 1)
    names = pd.Series([""], dtype="string").repeat(len(image)).reset_index(drop=True)
    of_repeated = (digest.ljust(_DIGEST_BYTES, b"\0").hex() for digest in digests[image[is_repeated]].tolist())
    names.iloc[is_repeated] = pd.Series([prefix + digest[:NAME_LENGTH] for digest in of_repeated], dtype="string")
    return names

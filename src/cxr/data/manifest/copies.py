"""Adds to a manifest how often its images and patients occur: copies, groups of one image, and what differs in them.

Texts are turned into numbers first. An array of numbers takes 8 bytes of memory for a row, and one of texts ten times
as many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.grouping import connect_pairs, count_different, count_rows

NAME_LENGTH = 16
"""Digits of a digest in the name of a group."""

PairFinder = Callable[[Sequence[str], Callable[[int], NDArray[np.uint8]]], list[tuple[int, int]]]
"""Perceptual hashes and the image of a position to pairs that show the same image."""


def add_copies(frame: pd.DataFrame, find_pairs: PairFinder, load: Callable[[int], NDArray[np.uint8]]) -> None:
    """Add how often a content occurs, the groups of files that show one image, and what differs in each group.

    Args:
        frame: a manifest without the columns ``copies``, ``labels_of_hash``, ``near_group``, ``duplicate_group``,
            ``labels_of_group`` and ``splits_of_patient``, which are added.
        find_pairs: finds pairs among the different contents; see
            :func:`cxr.data.manifest.duplicates.find_near_duplicates`.
        load: gives the grey image, uint8 ``(height, width)``, of a row.
    """
    content, digests = pd.factorize(frame["sha256"], sort=True)
    labels, _ = pd.factorize(frame["label"])
    frame["copies"] = count_rows(content)
    frame["labels_of_hash"] = count_different(content, labels)
    with_hash = np.flatnonzero((frame["phash"] != "").to_numpy() & (content >= 0))
    hashed, first = np.unique(content[with_hash], return_index=True)
    rows = with_hash[first]
    pairs = find_pairs(frame["phash"].iloc[rows].tolist(), lambda position: load(int(rows[position])))
    # A group is named after its smallest digest, so that its name depends on no path and no order.
    image_of = np.arange(len(digests))
    image_of[hashed] = hashed[connect_pairs(len(hashed), pairs)]
    image = np.where(content < 0, -1, image_of[content]) if len(digests) else content
    frame["near_group"] = _name_groups("near-", image, digests, count_different(image, content))
    frame["duplicate_group"] = _name_groups("same-", image, digests, count_rows(image))
    frame["labels_of_group"] = count_different(image, labels)
    patient, _ = pd.factorize(frame["patient"])
    split, _ = pd.factorize(frame["official_split"].mask(frame["official_split"] == ""))
    frame["splits_of_patient"] = count_different(patient, split)


def _name_groups(
    prefix: str, image: NDArray[np.int64], digests: pd.Index, members: pd.arrays.IntegerArray
) -> pd.Series[str]:
    """Name of the group of each row, ``""`` for a group of one."""
    is_repeated = np.flatnonzero(members.to_numpy(dtype=np.int64, na_value=0) > 1)
    names = pd.Series([""], dtype="string").repeat(len(image)).reset_index(drop=True)
    names.iloc[is_repeated] = prefix + pd.Series(digests[image[is_repeated]], dtype="string").str[:NAME_LENGTH]
    return names

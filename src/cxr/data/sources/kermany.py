"""The published data set of Kermany et al. (Cell 172, 2018): what a whole copy of it holds.

Chest radiographs of children of one to five years from one hospital. Copies of it are passed on resized, so
the size in bytes is known for the Kaggle original only; the number of images per folder is the same in all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.data.sources.layout import Folder, Layout
from cxr.errors import SourceError

NAME = "kermany"
LICENCE = "CC BY 4.0, Kermany, Zhang, Goldbaum, doi 10.17632/rscbjbr9sj.2"
KAGGLE_HANDLE = "paultimothymooney/chest-xray-pneumonia"
KAGGLE_BYTES = 1_236_482_806
"""Total size of the image files of the Kaggle download."""

COUNTS: Mapping[Folder, int] = MappingProxyType(
    {
        ("train", NORMAL): 1341,
        ("train", PNEUMONIA): 3875,
        ("val", NORMAL): 8,
        ("val", PNEUMONIA): 8,
        ("test", NORMAL): 234,
        ("test", PNEUMONIA): 390,
    }
)
IMAGES = sum(COUNTS.values())

LIKENESS = 0.9
"""Share of the images, and of names in the published style, from which a source is taken for this set."""

_IMAGE_NAME = re.compile(r"(person\d+_(bacteria|virus)_\d+|(NORMAL2-)?IM-\d+-\d+(-\d+)?)\.jpe?g", re.IGNORECASE)
_SET_NAME = re.compile(r"chest[-_ ]?xray|kermany", re.IGNORECASE)


def is_meant(layout: Layout, source_name: str) -> bool:
    """Tell whether a source is meant to be this set, so that a partial copy is not taken for another set.

    That is so when it has the published splits and file names, and either at least 90 % of the images or a
    name (of the source or of its inner folder) that begins with ``chest_xray`` or ``kermany``.

    Args:
        layout: what was found in the source.
        source_name: name of the archive, folder or prefix.

    Returns:
        Whether it must have the published number of images.
    """
    names = [path.name for path in layout.images]
    styled = sum(_IMAGE_NAME.fullmatch(name) is not None for name in names)
    published = any(split for split, _ in layout.counts) and styled >= LIKENESS * len(names)
    named = any(_SET_NAME.match(name) for name in (PurePosixPath(source_name).name, layout.root.name))
    return published and (named or len(names) >= LIKENESS * IMAGES)


def is_whole(counts: Mapping[Folder, int]) -> bool:
    """Compare the number of images with the published one.

    Args:
        counts: images per split and class.

    Returns:
        Whether every folder has its number and there is no other folder.
    """
    return dict(counts) == dict(COUNTS)


def check(
    counts: Mapping[Folder, int],
    size: int,
    source_name: str,
    remedy: str,
    *,
    expected_bytes: int | None = None,
) -> None:
    """Refuse a partial or altered copy.

    Args:
        counts: images received per split and class.
        size: total size of the images received.
        source_name: name of the source, for the message.
        remedy: what to do about a copy that is not meant to differ.
        expected_bytes: their total size, where it is known.

    Raises:
        SourceError: with a table of what was expected and received.
    """
    if is_whole(counts) and expected_bytes in (None, size):
        return
    rows = [(_label(folder), COUNTS.get(folder, 0), counts.get(folder, 0)) for folder in _folders(counts)]
    rows.append(("images", IMAGES, sum(counts.values())))
    if expected_bytes is not None:
        rows.append(("bytes", expected_bytes, size))
    table = "\n".join(
        f"  {label:<16}{expected:>15,}{received:>15,}{_note(expected, received)}" for label, expected, received in rows
    )
    raise SourceError(
        f"expected the whole Kermany set, received source={source_name}, which is partial or altered:\n"
        f"  {'':<16}{'expected':>15}{'received':>15}\n{table}\n"
        f"{remedy}; for a set that differs on purpose pass --expect any"
    )


def _folders(counts: Collection[Folder]) -> list[Folder]:
    return [*COUNTS, *sorted(set(counts) - set(COUNTS))]


def _label(folder: Folder) -> str:
    return "/".join(filter(None, folder))


def _note(expected: int, received: int) -> str:
    if received == expected:
        return ""
    return f"  {expected - received:,} missing" if received < expected else f"  {received - expected:,} too many"

"""The published data set of Kermany et al. (Cell 172, 2018): what a whole copy of it holds.

Chest radiographs of children of one to five years from one hospital. There are copies with smaller images, so the
size in bytes is known for the Kaggle original only; the number of images per folder is the same in all copies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.data.fetching.layout import SourceLayout, SplitAndClass
from cxr.errors import SourceError

NAME = "kermany"
LICENCE = "CC BY 4.0, Kermany, Zhang, Goldbaum, doi 10.17632/rscbjbr9sj.2"
KAGGLE_HANDLE = "paultimothymooney/chest-xray-pneumonia"
KAGGLE_BYTES = 1_236_482_806
"""Total size of the image files of the Kaggle download."""

COUNTS: Mapping[SplitAndClass, int] = MappingProxyType(
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

MIN_LIKENESS = 0.9
"""Share of the images, and of file names in the published style, from which a source is taken for this set."""

_IMAGE_NAME = re.compile(r"(person\d+_(bacteria|virus)_\d+|(NORMAL2-)?IM-\d+-\d+(-\d+)?)\.jpe?g", re.IGNORECASE)
_SET_NAME = re.compile(r"chest[-_ ]?xray|kermany", re.IGNORECASE)


def looks_like_kermany(layout: SourceLayout, source_name: str) -> bool:
    """Tell whether a source seems to be this set, so that a partial copy is not taken for another set.

    It does if it has the published splits and file names, and also either at least 90 % of the images or a name (of
    the source or of its inner folder) that begins with ``chest_xray`` or ``kermany``.

    Args:
        layout: layout of the source.
        source_name: name of the archive, folder or prefix.

    Returns:
        Whether it must have the published number of images.
    """
    names = [path.name for path in layout.images]
    names_in_style = sum(_IMAGE_NAME.fullmatch(name) is not None for name in names)
    has_published_names = any(split for split, _ in layout.counts) and names_in_style >= MIN_LIKENESS * len(names)
    has_set_name = any(_SET_NAME.match(name) for name in (PurePosixPath(source_name).name, layout.root.name))
    return has_published_names and (has_set_name or len(names) >= MIN_LIKENESS * IMAGES)


def is_complete(counts: Mapping[SplitAndClass, int]) -> bool:
    """Compare the number of images with the published one.

    Args:
        counts: images per split and class.

    Returns:
        Whether every folder has its number and there is no other folder.
    """
    return dict(counts) == dict(COUNTS)


def check_complete(
    counts: Mapping[SplitAndClass, int],
    size: int,
    source_name: str,
    remedy: str,
    *,
    expected_bytes: int | None = None,
) -> None:
    """Refuse a partial or altered copy.

    Args:
        counts: images received per split and class.
        size: total size of the images received, in bytes.
        source_name: name of the source, for the message.
        remedy: what to do about a copy that is not meant to differ.
        expected_bytes: total size of the whole set, where it is known.

    Raises:
        SourceError: with a table of what was expected and received.
    """
    if is_complete(counts) and expected_bytes in (None, size):
        return
    folders = [*COUNTS, *sorted(set(counts) - set(COUNTS))]
    rows = [("/".join(filter(None, folder)), COUNTS.get(folder, 0), counts.get(folder, 0)) for folder in folders]
    rows.append(("images", IMAGES, sum(counts.values())))
    if expected_bytes is not None:
        rows.append(("bytes", expected_bytes, size))
    table = "\n".join(
        f"  {label:<16}{expected:>15,}{received:>15,}{_describe_difference(expected, received)}"
        for label, expected, received in rows
    )
    raise SourceError(
        f"expected the whole Kermany set, received source={source_name}, which is partial or altered:\n"
        f"  {'':<16}{'expected':>15}{'received':>15}\n{table}\n"
        f"{remedy}; for a set that differs on purpose set fetch.expect to any in params.yaml, or pass --expect any"
    )


def _describe_difference(expected: int, received: int) -> str:
    if received == expected:
        return ""
    return f"  {expected - received:,} missing" if received < expected else f"  {received - expected:,} too many"

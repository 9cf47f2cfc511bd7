"""The published set: a whole copy passes; for every other copy the error says what it lacks."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from cxr.data.fetching import kermany
from cxr.data.fetching.layout import SourceLayout, find_layout
from cxr.errors import SourceError
from cxr.storage.contents import SourceFile

STYLES = {"NORMAL": "IM-{:04}-0001.jpeg", "PNEUMONIA": "person{}_virus_1.jpeg"}


def layout_of(share: float, root: str = "x", styles: dict[str, str] = STYLES) -> SourceLayout:
    return find_layout(
        [
            SourceFile(PurePosixPath(root, split, label, styles[label].format(number)), 100)
            for (split, label), count in kermany.COUNTS.items()
            for number in range(max(1, round(count * share)))
        ],
        "x",
        dict.fromkeys,
    )


def test_the_published_numbers_add_up() -> None:
    assert kermany.IMAGES == 5856


def test_a_whole_copy_passes_at_any_size_but_the_original_has_one() -> None:
    counts = dict(kermany.COUNTS)
    kermany.check_complete(counts, 37_610_874, "x", "again")
    kermany.check_complete(counts, kermany.KAGGLE_BYTES, "x", "again", expected_bytes=kermany.KAGGLE_BYTES)
    with pytest.raises(SourceError, match=r"bytes +1,236,482,806 +1,236,482,805 +1 missing"):
        kermany.check_complete(counts, kermany.KAGGLE_BYTES - 1, "x", "again", expected_bytes=kermany.KAGGLE_BYTES)


def test_a_partial_copy_is_described_per_folder() -> None:
    counts = {**kermany.COUNTS, ("train", "PNEUMONIA"): 3800, ("val", "NORMAL"): 9, ("", "NORMAL"): 2}
    del counts["test", "NORMAL"]
    with pytest.raises(SourceError) as caught:
        kermany.check_complete(counts, 0, "x.tar", "copy it again")
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()]
    assert "train/NORMAL 1,341 1,341" in lines
    assert "train/PNEUMONIA 3,875 3,800 75 missing" in lines
    assert "val/NORMAL 8 9 1 too many" in lines
    assert "test/NORMAL 234 0 234 missing" in lines
    assert "NORMAL 0 2 2 too many" in lines
    assert "source=x.tar" in lines[0]
    assert lines[-1].startswith("copy it again; ")


@pytest.mark.parametrize(
    ("share", "root", "name", "expected"),
    [
        (0.95, "x", "x.tar", True),
        (0.5, "x", "x.tar", False),
        (0.5, "chest_xray", "x.tar", True),
        (0.5, "x", "kermany224.tar", True),
    ],
)
def test_a_source_is_taken_for_the_set_by_size_or_name(share: float, root: str, name: str, expected: bool) -> None:
    assert kermany.looks_like_kermany(layout_of(share, root), name) is expected


def test_other_file_names_or_no_splits_are_another_set() -> None:
    other_styles = {"NORMAL": "n{}.png", "PNEUMONIA": "p{}.png"}
    assert not kermany.looks_like_kermany(layout_of(1, "chest_xray", other_styles), "kermany.tar")
    entries = [SourceFile(PurePosixPath(label, style.format(1)), 1) for label, style in STYLES.items()]
    plain = find_layout(entries, "x", dict.fromkeys)
    assert not kermany.looks_like_kermany(plain, "kermany-sample.tar")

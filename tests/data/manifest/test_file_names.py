"""Names of files are kept as their bytes."""

from __future__ import annotations

import os

from cxr.data.manifest.file_names import FileNames


def test_every_name_comes_back_as_it_was() -> None:
    not_utf8 = os.fsdecode(b"train/NORMAL/M\xfcller.jpeg")
    sample = ["train/NORMAL/a.jpeg", "train/PNEUMONIA/größer 肺.jpeg", not_utf8, ""]
    names = FileNames(sample[:2])
    names.extend(sample[2:])
    assert len(names) == 4
    assert list(names) == sample
    assert [names[position] for position in (3, 2, 1, 0)] == sample[::-1]
    assert list(FileNames()) == []

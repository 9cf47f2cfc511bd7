"""Folders as a source: listing and reading their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr.errors import SourceError
from cxr.storage.contents import FolderContents, shorten_list


@pytest.mark.parametrize(("body", "received"), [(b"xy", "with 2;"), (b"xyzxyz", "with more;")])
def test_a_file_that_changes_after_the_listing_is_found_while_it_is_read(
    tmp_path: Path, body: bytes, received: str
) -> None:
    (tmp_path / "a.png").write_bytes(b"xyz")
    contents = FolderContents(tmp_path)
    (tmp_path / "a.png").write_bytes(body)
    with pytest.raises(SourceError, match=f"expected 3 bytes in 'a.png', .* {received}"):
        [b"".join(pieces) for _, pieces in contents.read([file.path for file in contents.entries])]


def test_a_file_that_is_deleted_after_the_listing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"xyz")
    contents = FolderContents(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(SourceError, match="not readable"):
        list(contents.read([file.path for file in contents.entries]))


def test_hidden_folders_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / ".git" / "NORMAL").mkdir(parents=True)
    (tmp_path / ".git" / "NORMAL" / "a.png").touch()
    assert FolderContents(tmp_path).entries == ()


def test_long_lists_are_shortened() -> None:
    assert shorten_list(["a", "b\n", "c"], limit=2) == "'a', 'b\\n' and 1 more"

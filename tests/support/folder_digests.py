"""Digests of the files of a folder, to compare two folders byte by byte."""

from __future__ import annotations

import hashlib
from pathlib import Path


def folder_digests(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of every file.

    Args:
        folder: the folder; its subfolders are included.

    Returns:
        The digest of each path relative to the folder.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

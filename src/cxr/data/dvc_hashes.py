"""Hashes of data as DVC computes and records them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import yaml

from cxr.data.image_index import has_index, read_index
from cxr.files import IMAGE_INDEX_FILE
from cxr.yaml_text import parse_yaml


def pointer_md5(pointer: Path) -> str | None:
    """Read the hash in a pointer file of DVC, such as ``data.dvc``.

    Args:
        pointer: the file.

    Returns:
        The hash; None if there is no readable pointer.
    """
    value = _pointer_value(pointer, "md5")
    return None if value is None else str(value)


def pointer_files(pointer: Path) -> int | None:
    """Read the number of files in a pointer file of DVC.

    Args:
        pointer: the file.

    Returns:
        The number; None if there is no readable pointer, or it does not say.
    """
    value = _pointer_value(pointer, "nfiles")
    return value if isinstance(value, int) else None


def _pointer_value(pointer: Path, name: str) -> object:
    try:
        value: object = parse_yaml(pointer.read_bytes())["outs"][0][name]
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return None
    return value


def folder_md5(folder: Path) -> str:
    """Hash a folder as DVC does: the names and contents of its files, at any depth.

    The images of an index count as files, and the index itself does not: the hash is that of the folder with images.

    Args:
        folder: the folder.

    Returns:
        32 hex digits of md5, followed by ``.dir``.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / IMAGE_INDEX_FILE]
    entries = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.relative_to(folder).as_posix()}
        for path in files
    ]
    if has_index(folder):
        index = read_index(folder)
        entries += [{"md5": md5, "relpath": path} for md5, path in zip(index["md5"], index["path"], strict=True)]
    entries.sort(key=lambda entry: entry["relpath"])
    return f"{hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest()}.dir"

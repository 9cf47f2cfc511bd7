"""Which files of a data folder the manifest lists, and what their place says."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from cxr.data.dataset import CLASSES, IMAGE_SUFFIXES, OFFICIAL_SPLITS, SIDE_FILES, is_system
from cxr.errors import SourceError


def list_files(data: Path) -> list[str]:
    """List the files of the class folders, and what is named like an image elsewhere.

    Hidden and system files and the folder's own side files are left out. Links are listed, never followed.

    Args:
        data: the data folder.

    Returns:
        Relative posix paths, sorted. Names that are not UTF-8 hold surrogates, as ``os.fsdecode`` makes them.

    Raises:
        SourceError: if a folder cannot be listed.
    """
    found: list[str] = []
    for folder, subfolders, files in os.walk(data, onerror=_unlisted):
        here = PurePosixPath(Path(folder).relative_to(data).as_posix())
        subfolders[:] = [name for name in subfolders if not is_system(PurePosixPath(name))]
        found += [str(here / name) for name in subfolders if Path(folder, name).is_symlink()]
        in_class = place(here)[1] is not None
        for name in files:
            if is_system(PurePosixPath(name)) or (not here.parts and name in SIDE_FILES):
                continue
            if in_class or PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                found.append(str(here / name))
    return sorted(found)


def place(folder: PurePosixPath) -> tuple[str, str | None]:
    """Read official split and label from a folder.

    Args:
        folder: folder of an image, relative to the data folder.

    Returns:
        Official split, ``""`` if there is none; label, None outside of the class folders.
    """
    split = folder.parts[0] if folder.parts and folder.parts[0] in OFFICIAL_SPLITS else ""
    rest = folder.parts[1:] if split else folder.parts
    return split, rest[0] if len(rest) == 1 and rest[0] in CLASSES else None


def _unlisted(error: OSError) -> None:
    raise SourceError(
        f"expected a readable folder, received {error.filename}: {error.strerror}; check its permissions"
    ) from error

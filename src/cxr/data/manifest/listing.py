"""Lists the files of a data folder that belong in the manifest, and reads what their folder says."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from cxr.data.dataset import CLASSES, IMAGE_SUFFIXES, OFFICIAL_SPLITS, SIDE_FILES, is_system_file
from cxr.errors import SourceError


def list_image_files(data: Path) -> list[str]:
    """List all files of the class folders, and elsewhere the files that are named like an image.

    Hidden and system files and the folder's side files are left out. Links are listed, never followed.

    Args:
        data: the data folder.

    Returns:
        Relative posix paths, sorted. Names that are not UTF-8 hold surrogates, as ``os.fsdecode`` makes them.

    Raises:
        SourceError: if a folder cannot be listed.
    """
    paths: list[str] = []
    for folder_name, subfolders, files in os.walk(data, onerror=_raise_unreadable):
        folder = PurePosixPath(Path(folder_name).relative_to(data).as_posix())
        subfolders[:] = [name for name in subfolders if not is_system_file(PurePosixPath(name))]
        paths += [str(folder / name) for name in subfolders if Path(folder_name, name).is_symlink()]
        is_class_folder = parse_folder(folder)[1] is not None
        for name in files:
            if is_system_file(PurePosixPath(name)) or (not folder.parts and name in SIDE_FILES):
                continue
            if is_class_folder or PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                paths.append(str(folder / name))
    return sorted(paths)


def parse_folder(folder: PurePosixPath) -> tuple[str, str | None]:
    """Read official split and label from the path of a folder.

    Args:
        folder: folder of an image, relative to the data folder.

    Returns:
        Official split, ``""`` if there is none; label, None outside of the class folders.
    """
    split = folder.parts[0] if folder.parts and folder.parts[0] in OFFICIAL_SPLITS else ""
    below_split = folder.parts[1:] if split else folder.parts
    return split, below_split[0] if len(below_split) == 1 and below_split[0] in CLASSES else None


def _raise_unreadable(error: OSError) -> None:
    raise SourceError(
        f"expected a readable folder, received {error.filename}: {error.strerror}; check its permissions"
    ) from error

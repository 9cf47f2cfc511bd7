"""Lists the images of a folder on this machine, for the manifest or for prediction."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cxr.data.dataset import CLASSES, OFFICIAL_SPLITS, SIDE_FILES
from cxr.data.image_files import LINK, SPECIAL_FILE, SYSTEM_FILE, choose_images, is_system_file
from cxr.errors import SourceError
from cxr.images.file_types import is_named_as_image
from cxr.storage.contents import read_head

_READERS = 16


@dataclass(frozen=True)
class FolderListing:
    """The images of a folder, at any depth.

    Attributes:
        images: relative posix paths, sorted. Names that are not UTF-8 hold surrogates, as ``os.fsdecode`` makes them.
        left_out: reason (key of :data:`cxr.data.image_files.REASONS`) to the other entries, likewise. A hidden folder
            is one entry, which ends with a slash.
    """

    images: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]]


def list_image_files(data: Path) -> list[str]:
    """List all files of the class folders of a data folder, and its images elsewhere.

    Hidden and system files and the folder's side files are left out. Links are listed, never followed.

    Args:
        data: the data folder.

    Returns:
        Relative posix paths, sorted. Names that are not UTF-8 hold surrogates, as ``os.fsdecode`` makes them.

    Raises:
        SourceError: if a folder cannot be listed.
    """
    in_classes: list[str] = []
    elsewhere: list[PurePosixPath] = []
    for path, is_link_to_folder in _walk(data):
        if is_link_to_folder or (parse_folder(path.parent)[1] is not None and not is_system_file(path)):
            in_classes.append(str(path))
        elif str(path) not in SIDE_FILES:
            elsewhere.append(path)
    return sorted([*in_classes, *_list_images(data, elsewhere).images])


def list_images(folder: Path) -> FolderListing:
    """List the images of any folder, by their names or else by their first bytes.

    Links and special files that are named like images, and links to folders, are listed as images: reading them tells
    what they are. Links are never followed.

    Args:
        folder: the folder.

    Returns:
        Its images, and everything else with the reason why it is left out.

    Raises:
        SourceError: if a folder cannot be listed.
    """
    links_to_folders: list[str] = []
    paths: list[PurePosixPath] = []
    hidden_folders: list[str] = []
    for path, is_link_to_folder in _walk(folder, hidden_folders):
        if is_link_to_folder:
            links_to_folders.append(str(path))
        else:
            paths.append(path)
    listing = _list_images(folder, paths)
    left_out = dict(listing.left_out)
    if hidden_folders:
        left_out[SYSTEM_FILE] = tuple(sorted([*left_out.get(SYSTEM_FILE, ()), *hidden_folders]))
    return FolderListing(tuple(sorted([*listing.images, *links_to_folders])), left_out)


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


def _list_images(folder: Path, paths: Collection[PurePosixPath]) -> FolderListing:
    left_out: dict[str, list[PurePosixPath]] = defaultdict(list)
    candidates: list[PurePosixPath] = []
    for path in paths:
        reason = "" if is_named_as_image(path) or is_system_file(path) else _why_no_file(folder / path)
        if reason:
            left_out[reason].append(path)
        else:
            candidates.append(path)

    def read_heads(unknown: Collection[PurePosixPath]) -> dict[PurePosixPath, bytes]:
        with ThreadPoolExecutor(_READERS) as pool:
            heads = pool.map(_head_or_none, [folder / path for path in unknown])
            return {path: head for path, head in zip(unknown, heads, strict=True) if head is not None}

    images, other_files = choose_images(candidates, read_heads)
    left_out.update(other_files)
    return FolderListing(
        tuple(sorted(map(str, images))),
        {reason: tuple(sorted(map(str, files))) for reason, files in left_out.items()},
    )


def _walk(folder: Path, hidden_folders: list[str] | None = None) -> Iterator[tuple[PurePosixPath, bool]]:
    """Yield the files and links of a folder, and whether it is a link to a folder; hidden folders are not entered."""
    for base, subfolders, files in os.walk(folder, onerror=_raise_unreadable):
        parent = PurePosixPath(Path(base).relative_to(folder).as_posix())
        if hidden_folders is not None:
            hidden_folders += [f"{parent / name}/" for name in subfolders if is_system_file(PurePosixPath(name))]
        subfolders[:] = [name for name in subfolders if not is_system_file(PurePosixPath(name))]
        yield from ((parent / name, True) for name in subfolders if Path(base, name).is_symlink())
        yield from ((parent / name, False) for name in files)


def _why_no_file(path: Path) -> str:
    """Why there is nothing to read at a path; empty for a file, and where that cannot be told."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return ""
    if stat.S_ISLNK(mode):
        return LINK
    return "" if stat.S_ISREG(mode) else SPECIAL_FILE


def _head_or_none(path: Path) -> bytes | None:
    """First bytes of a file; None if it cannot be read, which is reported where it is read as an image."""
    try:
        return read_head(path)
    except OSError:
        return None


def _raise_unreadable(error: OSError) -> None:
    raise SourceError(
        f"expected a readable folder, received {error.filename}: {error.strerror}; check its permissions"
    ) from error

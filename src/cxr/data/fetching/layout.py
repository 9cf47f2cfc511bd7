"""Finds the class folders anywhere inside a source, and says which of its files belong to the data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cxr.data.dataset import CLASSES, IMAGE_SUFFIXES, OFFICIAL_SPLITS, SIDE_FILES, is_system_file
from cxr.errors import SourceError
from cxr.storage.contents import FolderContents, SourceFile, shorten_list

SYSTEM_FILES = "files of the operating system"
NESTED_COPY = "files of a nested copy"
OTHER_FILES = "other files"
"""Reasons why a file is left out."""

SplitAndClass = tuple[str, str]
"""An official split ("" where there is none) and a class."""


@dataclass(frozen=True)
class SourceLayout:
    """Which files of a source are copied, and under which names.

    Attributes:
        root: folder inside the source that holds the splits or the class folders.
        images: path in the source -> path in the data folder, ``train/NORMAL/x.jpeg`` or ``NORMAL/x.jpeg``.
        side: the same for the side files that lie beside the class folders: dataset card, boxes, table of patients.
        counts: images per split and class.
        bytes: total size of the images.
        ignored: files that are left out, by reason.
    """

    root: PurePosixPath
    images: Mapping[PurePosixPath, PurePosixPath]
    side: Mapping[PurePosixPath, PurePosixPath]
    counts: Mapping[SplitAndClass, int]
    bytes: int
    ignored: Mapping[str, tuple[PurePosixPath, ...]]


@dataclass(frozen=True)
class DataFolderContents:
    """Counts of the files in a data folder.

    Attributes:
        images: number of image files.
        bytes: their total size.
        counts: images per split and class.
        foreign_files: files that fetch never writes.
    """

    images: int
    bytes: int
    counts: Mapping[SplitAndClass, int]
    foreign_files: tuple[PurePosixPath, ...]


def find_layout(entries: Iterable[SourceFile], name: str) -> SourceLayout:
    """Find the only set of class folders in a source.

    Args:
        entries: all files of the source.
        name: name of the source, for messages.

    Returns:
        Which files to copy. Class and split folders are recognised in any case and copied in the official spelling.

    Raises:
        SourceError: if there is no such set, more than one, or a class is missing.
    """
    ignored: dict[str, list[PurePosixPath]] = defaultdict(list)
    roots: dict[PurePosixPath, dict[PurePosixPath, SourceFile]] = defaultdict(dict)
    other_entries: list[SourceFile] = []
    for entry in entries:
        if is_system_file(entry.path):
            ignored[SYSTEM_FILES].append(entry.path)
        elif (root_and_target := _split_image_path(entry.path)) is None:
            other_entries.append(entry)
        else:
            root, target = root_and_target
            if target in roots[root]:
                raise SourceError(
                    f"expected each image once, received source={name} with {str(entry.path)!r} and "
                    f"{str(roots[root][target].path)!r} for the same place; remove one of them"
                )
            roots[root][target] = entry
    root = _only_root(roots, ignored, other_entries, name)
    images = roots[root]
    side = {entry.path: PurePosixPath(entry.path.name) for entry in other_entries if _is_side_file(entry.path, root)}
    ignored[OTHER_FILES] += [entry.path for entry in other_entries if entry.path not in side]
    return SourceLayout(
        root=root,
        images={entry.path: target for target, entry in images.items()},
        side=side,
        counts=Counter(_split_and_class(target) for target in images),
        bytes=sum(entry.bytes for entry in images.values()),
        ignored={reason: tuple(paths) for reason, paths in ignored.items() if paths},
    )


def count_data_folder(data: Path) -> DataFolderContents:
    """Count the files of a data folder.

    Args:
        data: an existing data folder.

    Returns:
        Its images and its other files.
    """
    counts: Counter[SplitAndClass] = Counter()
    size = 0
    foreign_files = []
    for entry in FolderContents(data, follow_links=True).entries:
        root_and_target = _split_image_path(entry.path)
        if root_and_target is not None and root_and_target[0] == PurePosixPath():
            counts[_split_and_class(root_and_target[1])] += 1
            size += entry.bytes
        elif not is_system_file(entry.path) and not _is_side_file(entry.path, PurePosixPath()):
            foreign_files.append(entry.path)
    return DataFolderContents(sum(counts.values()), size, counts, tuple(foreign_files))


def _split_image_path(path: PurePosixPath) -> tuple[PurePosixPath, PurePosixPath] | None:
    """Split the path of an image into root and path in the data folder; None outside the class folders."""
    label = path.parent.name.upper()
    if label not in CLASSES or path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    above = path.parent.parent
    split = above.name.lower()
    if split in OFFICIAL_SPLITS:
        return above.parent, PurePosixPath(split, label, path.name)
    return above, PurePosixPath(label, path.name)


def _split_and_class(target: PurePosixPath) -> SplitAndClass:
    return (target.parts[0], target.parts[1]) if len(target.parts) == 3 else ("", target.parts[0])


def _is_side_file(path: PurePosixPath, root: PurePosixPath) -> bool:
    return path.name in SIDE_FILES and path.parent == root


def _only_root(
    roots: dict[PurePosixPath, dict[PurePosixPath, SourceFile]],
    ignored: dict[str, list[PurePosixPath]],
    other_entries: list[SourceFile],
    name: str,
) -> PurePosixPath:
    """Choose the outermost root. Copies nested in it are ignored; any other set makes the source ambiguous."""
    if not roots:
        raise SourceError(f"{_expectation(name)}, which holds {_describe_files(other_entries)}; {_REMEDY}")
    root, *inner_roots = sorted(roots, key=lambda path: (len(path.parts), path))
    for inner_root in inner_roots:
        is_copy = inner_root.is_relative_to(root) and roots[inner_root].keys() <= roots[root].keys()
        if not is_copy:
            sets = "; ".join(f"{path}/ with {len(roots[path]):,} images" for path in (root, *inner_roots))
            raise SourceError(f"{_expectation(name)}, which holds {1 + len(inner_roots)} sets: {sets}; {_REMEDY}")
        ignored[NESTED_COPY] += [entry.path for entry in roots[inner_root].values()]
    folders = {_split_and_class(target) for target in roots[root]}
    missing = set(CLASSES) - {label for _, label in folders}
    is_mixed = len({split == "" for split, _ in folders}) == 2
    if missing or is_mixed:
        names = ", ".join("/".join(filter(None, folder)) for folder in sorted(folders))
        problem = f"without {' and '.join(sorted(missing))}" if missing else "inside and outside of splits"
        raise SourceError(f"{_expectation(name)}, which holds images in {names}, {problem}; {_REMEDY}")
    return root


_REMEDY = "name the folders like that, or give the folder that holds them"


def _expectation(name: str) -> str:
    return (
        f"expected one set of images in {{{','.join(OFFICIAL_SPLITS)}}}/{{{','.join(CLASSES)}}} or "
        f"{{{','.join(CLASSES)}}}, received source={name}"
    )


def _describe_files(entries: list[SourceFile]) -> str:
    if not entries:
        return "no files"
    images = sum(entry.path.suffix.lower() in IMAGE_SUFFIXES for entry in entries)
    folders = sorted({entry.path.parent for entry in entries})
    return f"{len(entries):,} files ({images:,} named as images) in {shorten_list(folders)}"

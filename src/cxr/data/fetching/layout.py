"""Finds the class folders anywhere inside a source, and says which of its files belong to the data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cxr.data.dataset import CLASSES, OFFICIAL_SPLITS, SIDE_FILES
from cxr.data.image_files import ELSEWHERE, NESTED_COPY, SYSTEM_FILE, ReadHeads, choose_images, is_system_file
from cxr.data.image_index import has_index, read_index
from cxr.errors import SourceError
from cxr.files import IMAGE_INDEX_FILE
from cxr.images.file_types import is_named_as_image
from cxr.storage.contents import FolderContents, SourceFile, shorten_list

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
        ignored: files that are left out, by reason (keys of :data:`cxr.data.image_files.REASONS`).
    """

    root: PurePosixPath
    images: Mapping[PurePosixPath, PurePosixPath]
    side: Mapping[PurePosixPath, PurePosixPath]
    counts: Mapping[SplitAndClass, int]
    bytes: int
    ignored: Mapping[str, tuple[PurePosixPath, ...]]


class _ClassImage(NamedTuple):
    """A file in a class folder: its entry, the folder above the split or class, and its path in the data folder."""

    entry: SourceFile
    root: PurePosixPath
    target: PurePosixPath


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


def find_layout(entries: Iterable[SourceFile], name: str, read_heads: ReadHeads) -> SourceLayout:
    """Find the only set of class folders in a source.

    Args:
        entries: all files of the source.
        name: name of the source, for messages.
        read_heads: reads first bytes of files of the source; called for those in class folders whose names do not say
            whether they are images.

    Returns:
        Which files to copy. Class and split folders are recognised in any case and copied in the official spelling.

    Raises:
        SourceError: if there is no such set, more than one, or a class is missing.
    """
    roots: dict[PurePosixPath, dict[PurePosixPath, SourceFile]] = defaultdict(dict)
    images, other_entries, left_out = _sort_entries(entries, read_heads)
    ignored: dict[str, list[PurePosixPath]] = defaultdict(list, left_out)
    for entry, root, target in images:
        if target in roots[root]:
            raise SourceError(
                f"expected each image once, received source={name} with {str(entry.path)!r} and "
                f"{str(roots[root][target].path)!r} for the same place; remove one of them"
            )
        roots[root][target] = entry
    root = _only_root(roots, ignored, other_entries, name)
    entries_of_targets = roots[root]
    side = {entry.path: PurePosixPath(entry.path.name) for entry in other_entries if _is_side_file(entry.path, root)}
    ignored[ELSEWHERE] += [entry.path for entry in other_entries if entry.path not in side]
    return SourceLayout(
        root=root,
        images={entry.path: target for target, entry in entries_of_targets.items()},
        side=side,
        counts=Counter(_split_and_class(target) for target in entries_of_targets),
        bytes=sum(entry.bytes for entry in entries_of_targets.values()),
        ignored={reason: tuple(paths) for reason, paths in ignored.items() if paths},
    )


def count_data_folder(data: Path) -> DataFolderContents:
    """Count the files of a data folder; those of its index count as images.

    Args:
        data: an existing data folder.

    Returns:
        Its images and its other files.

    Raises:
        DataError: if its index is damaged or wrong.
    """
    contents = FolderContents(data, follow_links=True)
    images, other_entries, left_out = _sort_entries(contents.entries, contents.read_heads)
    foreign_files = [path for reason, paths in left_out.items() if reason != SYSTEM_FILE for path in paths]
    foreign_files += [
        entry.path for entry in other_entries
        if not _is_side_file(entry.path, PurePosixPath()) and str(entry.path) != IMAGE_INDEX_FILE
    ]  # fmt: skip
    counts: Counter[SplitAndClass] = Counter()
    size = 0
    for entry, root, target in images:
        if root == PurePosixPath():
            counts[_split_and_class(target)] += 1
            size += entry.bytes
        else:
            foreign_files.append(entry.path)
    if has_index(data):
        index = read_index(data)
        counts.update(_split_and_class(PurePosixPath(path)) for path in index["path"])
        size += int(index["bytes"].sum())
    return DataFolderContents(sum(counts.values()), size, counts, tuple(sorted(foreign_files)))


def lies_in_class_folder(path: PurePosixPath) -> bool:
    """Tell whether a file lies directly in a folder that is named like a class.

    Args:
        path: path inside a source.

    Returns:
        Whether it does, in any spelling of the class.
    """
    return _split_path(path) is not None


def _sort_entries(
    entries: Iterable[SourceFile], read_heads: ReadHeads
) -> tuple[list[_ClassImage], list[SourceFile], dict[str, list[PurePosixPath]]]:
    """Return the images in class folders, the files elsewhere, and files that are left out, by reason."""
    in_classes: list[_ClassImage] = []
    elsewhere: list[SourceFile] = []
    system_files: list[PurePosixPath] = []
    for entry in entries:
        if is_system_file(entry.path):
            system_files.append(entry.path)
        elif (root_and_target := _split_path(entry.path)) is not None:
            in_classes.append(_ClassImage(entry, *root_and_target))
        else:
            elsewhere.append(entry)
    image_paths, left_out = choose_images([image.entry.path for image in in_classes], read_heads)
    chosen_paths = set(image_paths)
    images = [image for image in in_classes if image.entry.path in chosen_paths]
    return images, elsewhere, left_out | ({SYSTEM_FILE: system_files} if system_files else {})


def _split_path(path: PurePosixPath) -> tuple[PurePosixPath, PurePosixPath] | None:
    """Split the path of a file into root and path in the data folder; None outside the class folders."""
    label = path.parent.name.upper()
    if label not in CLASSES:
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
        visible = [path for reason, paths in ignored.items() if reason != SYSTEM_FILE for path in paths]
        visible += [entry.path for entry in other_entries]
        raise SourceError(f"{_expectation(name)}, which holds {_describe_files(visible)}; {_REMEDY}")
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


def _describe_files(paths: list[PurePosixPath]) -> str:
    if not paths:
        return "no files"
    images = sum(map(is_named_as_image, paths))
    folders = sorted({path.parent for path in paths})
    return f"{len(paths):,} files ({images:,} named as images) in {shorten_list(folders)}"

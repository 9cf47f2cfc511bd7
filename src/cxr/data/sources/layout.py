"""Find the class folders anywhere inside a source, and say which of its files are data and which are not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cxr.data.dataset import CLASSES, IMAGE_SUFFIXES, OFFICIAL_SPLITS, SIDE_FILES, is_system
from cxr.errors import SourceError
from cxr.storage.contents import Entry, FolderContents, some

SYSTEM = "files of the operating system"
NESTED = "files of a nested copy"
OTHER = "other files"

Folder = tuple[str, str]
"""An official split ("" where there is none) and a class."""


@dataclass(frozen=True)
class Layout:
    """Which files of a source are kept, and under which names.

    Attributes:
        root: folder inside the source that holds the splits or the class folders.
        images: path in the source -> path in the data folder, ``train/NORMAL/x.jpeg`` or ``NORMAL/x.jpeg``.
        side: the same for the data card and the boxes that lie beside the images.
        counts: images per split and class.
        bytes: total size of the images.
        ignored: what is left out, by reason.
    """

    root: PurePosixPath
    images: Mapping[PurePosixPath, PurePosixPath]
    side: Mapping[PurePosixPath, PurePosixPath]
    counts: Mapping[Folder, int]
    bytes: int
    ignored: Mapping[str, tuple[PurePosixPath, ...]]


@dataclass(frozen=True)
class Held:
    """What lies in a data folder now.

    Attributes:
        images: number of image files.
        bytes: their total size.
        counts: images per split and class.
        foreign: files that fetch never writes.
    """

    images: int
    bytes: int
    counts: Mapping[Folder, int]
    foreign: tuple[PurePosixPath, ...]


def find_layout(entries: Iterable[Entry], name: str) -> Layout:
    """Find the one set of class folders in a source.

    Args:
        entries: all files of the source.
        name: name of the source, for messages.

    Returns:
        What to keep. Class and split folders are recognised in any case and kept in the official spelling.

    Raises:
        SourceError: if there is no such set, more than one, or a class is missing.
    """
    ignored: dict[str, list[PurePosixPath]] = defaultdict(list)
    roots: dict[PurePosixPath, dict[PurePosixPath, Entry]] = defaultdict(dict)
    rest: list[Entry] = []
    for entry in entries:
        if is_system(entry.path):
            ignored[SYSTEM].append(entry.path)
        elif (place := _place(entry.path)) is None:
            rest.append(entry)
        else:
            root, target = place
            if target in roots[root]:
                raise SourceError(
                    f"expected each image once, received source={name} with {str(entry.path)!r} and "
                    f"{str(roots[root][target].path)!r} for the same place; remove one of them"
                )
            roots[root][target] = entry
    root = _only_root(roots, ignored, rest, name)
    images = roots[root]
    side = {entry.path: PurePosixPath(entry.path.name) for entry in rest if _is_side(entry.path, root)}
    ignored[OTHER] += [entry.path for entry in rest if entry.path not in side]
    return Layout(
        root=root,
        images={entry.path: target for target, entry in images.items()},
        side=side,
        counts=Counter(_folder(target) for target in images),
        bytes=sum(entry.bytes for entry in images.values()),
        ignored={reason: tuple(paths) for reason, paths in ignored.items() if paths},
    )


def held_in(data: Path) -> Held:
    """Count what lies in a data folder.

    Args:
        data: an existing data folder.

    Returns:
        Its images and its other files.
    """
    counts: Counter[Folder] = Counter()
    size = 0
    foreign = []
    for entry in FolderContents(data, follow_links=True).entries:
        place = _place(entry.path)
        if place is not None and place[0] == PurePosixPath():
            counts[_folder(place[1])] += 1
            size += entry.bytes
        elif not is_system(entry.path) and not _is_side(entry.path, PurePosixPath()):
            foreign.append(entry.path)
    return Held(sum(counts.values()), size, counts, tuple(foreign))


def _place(path: PurePosixPath) -> tuple[PurePosixPath, PurePosixPath] | None:
    """Split the path of an image into root and place below it; None outside the class folders."""
    label = path.parent.name.upper()
    if label not in CLASSES or path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    above = path.parent.parent
    split = above.name.lower()
    if split in OFFICIAL_SPLITS:
        return above.parent, PurePosixPath(split, label, path.name)
    return above, PurePosixPath(label, path.name)


def _folder(target: PurePosixPath) -> Folder:
    return (target.parts[0], target.parts[1]) if len(target.parts) == 3 else ("", target.parts[0])


def _is_side(path: PurePosixPath, root: PurePosixPath) -> bool:
    return path.name in SIDE_FILES and path.parent == root


def _only_root(
    roots: dict[PurePosixPath, dict[PurePosixPath, Entry]],
    ignored: dict[str, list[PurePosixPath]],
    rest: list[Entry],
    name: str,
) -> PurePosixPath:
    """Choose the outermost root; copies nested in it are ignored, anything else beside it is ambiguous."""
    if not roots:
        raise SourceError(f"{_expected(name)}, which holds {_found(rest)}; {_REMEDY}")
    root, *others = sorted(roots, key=lambda path: (len(path.parts), path))
    for other in others:
        if not (other.is_relative_to(root) and roots[other].keys() <= roots[root].keys()):
            sets = "; ".join(f"{path}/ with {len(roots[path]):,} images" for path in (root, *others))
            raise SourceError(f"{_expected(name)}, which holds {1 + len(others)} sets: {sets}; {_REMEDY}")
        ignored[NESTED] += [entry.path for entry in roots[other].values()]
    folders = {_folder(target) for target in roots[root]}
    missing = set(CLASSES) - {label for _, label in folders}
    mixed = len({split == "" for split, _ in folders}) == 2
    if missing or mixed:
        found = ", ".join("/".join(filter(None, folder)) for folder in sorted(folders))
        why = f"without {' and '.join(sorted(missing))}" if missing else "inside and outside of splits"
        raise SourceError(f"{_expected(name)}, which holds images in {found}, {why}; {_REMEDY}")
    return root


_REMEDY = "name the folders like that, or give the folder that holds them"


def _expected(name: str) -> str:
    return (
        f"expected one set of images in {{{','.join(OFFICIAL_SPLITS)}}}/{{{','.join(CLASSES)}}} or "
        f"{{{','.join(CLASSES)}}}, received source={name}"
    )


def _found(rest: list[Entry]) -> str:
    if not rest:
        return "no files"
    images = sum(entry.path.suffix.lower() in IMAGE_SUFFIXES for entry in rest)
    folders = sorted({entry.path.parent for entry in rest})
    return f"{len(rest):,} files ({images:,} named as images) in {some(folders)}"

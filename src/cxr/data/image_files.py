"""Chooses the images among the files of a folder, an archive or a bucket, and says why each other file is left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from cxr.images.file_types import is_named_as_image, starts_as_disc_index, starts_as_image
from cxr.storage.contents import shorten_list

SYSTEM_FILE, DISC_INDEX, EMPTY_FILE, NO_IMAGE, LINK, SPECIAL_FILE = (
    "system", "disc_index", "empty", "no_image", "link", "special"
)  # fmt: skip
NESTED_COPY, ELSEWHERE, UNLABELLED, NOT_DICOM = "nested_copy", "elsewhere", "unlabelled", "not_dicom"

REASONS: dict[str, str] = {
    SYSTEM_FILE: "hidden, or of the operating system",
    DISC_INDEX: "the index of a disc (DICOMDIR), which holds no image",
    EMPTY_FILE: "empty, and not named like an image",
    NO_IMAGE: "no JPEG, PNG or DICOM by name or content",
    LINK: "a link, which is not followed",
    SPECIAL_FILE: "a device, pipe or socket",
    NESTED_COPY: "part of a nested copy of the class folders",
    ELSEWHERE: "outside of the class folders",
    UNLABELLED: "without a row in the table of labels",
    NOT_DICOM: "not named like a DICOM file",
}
"""Reasons why a file of a source is left out, each with words for people."""

SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"})

ReadHeads = Callable[[Collection[PurePosixPath]], Mapping[PurePosixPath, bytes]]
"""Paths to the first :data:`cxr.images.file_types.HEAD_BYTES` bytes of these files, where they can be read."""


def choose_images(
    paths: Iterable[PurePosixPath], read_heads: ReadHeads
) -> tuple[list[PurePosixPath], dict[str, list[PurePosixPath]]]:
    """Choose the images: by the endings of their names, and where these say nothing by their first bytes.

    A file that is named like an image counts as one, also if it is empty or damaged, so that its error is reported
    where it is read. So does a file whose first bytes cannot be read.

    Args:
        paths: paths inside the source.
        read_heads: reads first bytes; it is called once, for the files whose names do not say whether they are images.

    Returns:
        The images, and the other files by reason (keys of :data:`REASONS`), both in the order of ``paths``.
    """
    visible: list[PurePosixPath] = []
    left_out: dict[str, list[PurePosixPath]] = defaultdict(list)
    for path in paths:
        if is_system_file(path):
            left_out[SYSTEM_FILE].append(path)
        else:
            visible.append(path)
    heads = read_heads([path for path in visible if not is_named_as_image(path)])
    images = []
    for path in visible:
        reason = _reason_against(heads[path]) if path in heads else ""
        if reason:
            left_out[reason].append(path)
        else:
            images.append(path)
    return images, dict(left_out)


def describe_left_out(reason: str, paths: Sequence[object]) -> str:
    """Say in one line which files are left out, and why.

    Args:
        reason: key of :data:`REASONS`.
        paths: the files.

    Returns:
        For example ``"left out 2 files (outside of the class folders): 'a.txt', 'b.txt'"``, shortened if they are many.
    """
    files = f"{len(paths):,} file{'' if len(paths) == 1 else 's'}"
    return f"left out {files} ({REASONS[reason]}): {shorten_list(paths)}"


def is_system_file(path: PurePosixPath) -> bool:
    """Tell whether a file is one that operating systems and tools leave beside data.

    Args:
        path: path inside the source.

    Returns:
        Whether a part of the path is hidden (``.DS_Store``, ``._x``) or known, such as ``__MACOSX``.
    """
    return any(part.startswith(".") or part.lower() in SYSTEM_NAMES for part in path.parts)


def _reason_against(head: bytes) -> str:
    """Why a file with these first bytes is no image; empty if it is one."""
    if not head:
        return EMPTY_FILE
    if starts_as_disc_index(head):
        return DISC_INDEX
    return "" if starts_as_image(head) else NO_IMAGE

"""The raw images of a data set in a folder of this machine."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from cxr.data.manifest.listing import list_image_files
from cxr.errors import SourceError
from cxr.images.decoding import read_bytes
from cxr.images.raw_images import RawImages

_SETTLED_NANOSECONDS = 2_000_000_000
"""Age of a file from which its times tell a later change: two changes in one tick of the clock have the same time."""


class ImageFolder(RawImages):
    """Images in the data folder itself. Links are listed, never followed."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder; nothing is read yet.

        Args:
            folder: the data folder, which need not exist.
        """
        self.folder = folder

    def names(self) -> list[str]:
        """List all files of the class folders, and the images elsewhere."""
        if not self.folder.is_dir():
            raise SourceError(f"expected a data folder, received data={self.folder}; run `cxr fetch`")
        return list_image_files(self.folder)

    def __contains__(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        return (self.folder / name).is_file()

    def read(self, name: str, *, max_bytes: int | None = None) -> bytes:
        """Read a regular file."""
        return read_bytes(self.folder / name, max_bytes=max_bytes)

    def size_and_sha256(self, name: str) -> tuple[int, str]:
        """Read a file in pieces."""
        try:
            with (self.folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return file.tell(), digest
        except OSError:
            return -1, ""

    def known_sha256(self, name: str) -> str | None:
        """No digest is known without reading the file."""
        return None

    def state(self, name: str) -> str | None:
        """Device, inode, size and times of a file; None if it was changed just now, or cannot be seen.

        One of the times is that at which the kernel saw the last change (``ctime``), which no program can set.
        """
        try:
            status = (self.folder / name).lstat()
        except OSError:
            return None
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        if not 0 <= changed <= time.time_ns() - _SETTLED_NANOSECONDS:
            return None
        return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"

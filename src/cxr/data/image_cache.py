"""Copies of images that are read by address, kept on this machine between runs in a folder of limited size."""

from __future__ import annotations

import threading
from pathlib import Path

from cxr.images.result_packs import ResultFolder, limit_size

_CONTENTS_FOLDER = "sha256"


class ImageCache:
    """Images by their sha256, in packs (:mod:`cxr.images.result_packs`). It is thread-safe."""

    def __init__(self, folder: Path | None, max_bytes: int) -> None:
        """Open the cache.

        Args:
            folder: the folder; it need not exist. None keeps nothing.
            max_bytes: largest size of the folder after the work, and most bytes that one run keeps; 0 keeps nothing.
        """
        self._root = folder if max_bytes else None
        self._max_bytes = self._free_bytes = max_bytes
        self._contents = ResultFolder(None if self._root is None else self._root / _CONTENTS_FOLDER)
        self._lock = threading.Lock()

    def find(self, sha256: str) -> bytes | None:
        """Find an image.

        Args:
            sha256: digest of its content.

        Returns:
            Its content; None if it is not kept, or if it is damaged.
        """
        return self._contents.find(sha256)

    def keep(self, sha256: str, content: bytes) -> None:
        """Keep an image, unless this run has kept as many bytes as the folder may hold.

        Where not all images fit, those that are kept first stay, so that the next run finds at least these.

        Args:
            sha256: digest of its content.
            content: its content.
        """
        with self._lock:
            fits = len(content) <= self._free_bytes
            self._free_bytes -= len(content) if fits else 0
        if fits:
            self._contents.keep(sha256, content)

    def close(self) -> None:
        """Write what is new, and remove the images that were not used for the longest time."""
        if self._root is not None:
            self._contents.save()
            self._contents.mark_used_packs()
            limit_size(self._root, self._max_bytes)


NO_IMAGE_CACHE = ImageCache(None, 0)
"""For images of which no copies are kept."""

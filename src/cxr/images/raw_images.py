"""The raw images of a data set, read by name wherever they lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from cxr.cpu import available_cores


class RawImages(ABC):
    """The raw images of a data set. Several threads may call the methods at once.

    The name of an image is its path relative to the data folder, posix, for example ``train/NORMAL/x.jpeg``. Names that
    are not UTF-8 hold surrogates, as ``os.fsdecode`` makes them.

    Attributes:
        folder: the data folder. It holds the side files, such as the dataset card; not always the images.
    """

    folder: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the images, also after an error."""
        self.close()

    def close(self) -> None:  # noqa: B027  # most places have nothing to close
        """End the work with the images: what was kept of them is written to disk."""

    @property
    def workers(self) -> int:
        """Number of threads that suits the reading of images."""
        return available_cores()

    @abstractmethod
    def names(self) -> list[str]:
        """List the images.

        Returns:
            Their names, sorted.

        Raises:
            SourceError: if they cannot be listed.
        """

    @abstractmethod
    def __contains__(self, name: str) -> bool:
        """Tell whether there is an image of this name."""

    @abstractmethod
    def read(self, name: str, *, max_bytes: int | None = None) -> bytes:
        """Read an image.

        Args:
            name: its name.
            max_bytes: largest size that is loaded; None for no limit.

        Returns:
            Its content.

        Raises:
            ImageError: ``symlink``, ``special``, ``unreadable`` or ``too_large``.
            SourceError: if the place of the images fails, so that it cannot be told what the image is.
        """

    @abstractmethod
    def size_and_sha256(self, name: str) -> tuple[int, str]:
        """Size and digest of an image, which is not loaded into memory.

        Args:
            name: its name.

        Returns:
            Size in bytes, -1 if unknown; hexadecimal sha256 of the content, ``""`` if unknown.
        """

    @abstractmethod
    def known_sha256(self, name: str) -> str | None:
        """Digest of an image where it is known without reading the image, else None."""

    @abstractmethod
    def state(self, name: str) -> str | None:
        """Text that changes when the content does, without reading the image; None if there is no such text."""

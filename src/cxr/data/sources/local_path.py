"""A folder or an archive on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cxr.data.fetching.source import ListedSource
from cxr.errors import SourceError

if TYPE_CHECKING:
    from cxr.storage.contents import SourceContents


class LocalPathSource(ListedSource):
    """A folder, a tar or a zip file; it takes every address that no other kind of source accepts."""

    is_local: ClassVar[bool] = True
    can_hold_versions: ClassVar[bool] = True
    keeps_images: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """Name of the folder or file."""
        return self._path.resolve().name

    @property
    def local_path(self) -> Path | None:
        """The folder or file, if it exists."""
        return self._path if self._path.exists() else None

    @property
    def _path(self) -> Path:
        return Path(self.request.source).expanduser()

    def open(self) -> SourceContents:
        """List the folder or the archive."""
        from cxr.data.fetching.archives import ARCHIVE_SUFFIXES, open_archive
        from cxr.data.sources.registry import list_spellings
        from cxr.storage.contents import FolderContents

        if self._path.is_dir():
            return FolderContents(self._path)
        if self._path.is_file():
            return open_archive(self._path, max_bytes=self.request.max_bytes)
        raise SourceError(
            f"expected {list_spellings()}, or an existing folder or archive ({', '.join(ARCHIVE_SUFFIXES)}), "
            f"received source={self.request.source}; check the spelling"
        )

"""The base class of all data sources.

The modules in ``cxr.data.sources`` are imported to find the kinds of sources, also for ``cxr fetch --help``. They
therefore import libraries inside of functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from cxr.data.fetching.request import FetchRequest
    from cxr.storage.contents import SourceContents


class DataSource(ABC):
    """One kind of data source. A subclass in a module of ``cxr.data.sources`` is all that a new kind needs.

    Attributes:
        scheme: first part of its addresses: ``"orthanc"`` for ``orthanc`` and ``orthanc:...``.
        spellings: how its addresses are written, for ``--help`` and error messages.
        is_local: whether its addresses are paths of this machine.
        can_hold_versions: whether its addresses can be those of a DVC remote.
        keeps_images: whether its images can be read later where they are, so that an index can name them.
        unused_parameters: parameters of the request that do not change what this source gives.
    """

    scheme: ClassVar[str] = ""
    spellings: ClassVar[tuple[str, ...]] = ()
    is_local: ClassVar[bool] = False
    can_hold_versions: ClassVar[bool] = False
    keeps_images: ClassVar[bool] = False
    unused_parameters: ClassVar[frozenset[str]] = frozenset({"phantom_images", "phantom_seed"})

    def __init__(self, request: FetchRequest) -> None:
        """Keep the request; nothing is read yet.

        Args:
            request: what to fetch, with an address that this kind accepts.
        """
        self.request = request

    @classmethod
    def accepts(cls, address: str) -> bool:
        """Tell whether an address is of this kind.

        Args:
            address: address of a source.

        Returns:
            Whether it is the scheme alone or begins with the scheme and a colon.
        """
        return bool(cls.scheme) and address.partition(":")[0] == cls.scheme

    @abstractmethod
    def fill(self, folder: Path) -> None:
        """Write the images, or if the request says so their index, and the dataset card into a folder.

        Args:
            folder: empty folder to fill.

        Raises:
            SourceError: if the source is missing, unreachable, damaged, unsafe, partial or of an unknown layout.
        """

    @property
    def label(self) -> str:
        """The address as the dataset card spells it, without folders of this machine."""
        return self.request.source.rstrip("/")

    @property
    def local_path(self) -> Path | None:
        """The existing file or folder of this machine that is read; None for all other sources."""
        return None

    @property
    def expected_bytes(self) -> int | None:
        """Total size of the images, where it is known in advance."""
        return None

    def remove_downloads(self) -> None:  # noqa: B027  # most sources have nothing to remove
        """Remove partial downloads; called once the data folder is complete."""


class ListedSource(DataSource):
    """A source whose files are listed first, and copied if the list is as expected."""

    @property
    def remedy(self) -> str:
        """What to do about a partial copy."""
        return "copy or download it again"

    @abstractmethod
    def open(self) -> SourceContents:
        """List the source. Kaggle and single archives in object storage are downloaded for that.

        Raises:
            SourceError: if there is no such source or it cannot be listed.
        """

    def fill(self, folder: Path) -> None:
        """Copy the images as they are, or index them, and write the dataset card."""
        from cxr.data.fetching.copying import copy_images

        copy_images(
            self.open(),
            folder,
            self.request,
            label=self.label,
            expected_bytes=self.expected_bytes,
            remedy=self.remedy,
        )

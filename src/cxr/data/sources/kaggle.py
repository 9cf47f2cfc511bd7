"""Public data sets of Kaggle. kagglehub downloads them without an account and resumes interrupted downloads."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cxr.data.fetching.source import ListedSource
from cxr.errors import SourceError
from cxr.files import is_disk_full

if TYPE_CHECKING:
    from cxr.storage.contents import SourceContents

CONNECT_TIMEOUT = 10
"""Seconds after which an unanswered connection counts as no network."""

_HANDLE = re.compile(r"\w[\w.-]*/\w[\w.-]*(/versions/\d+)?")
_ALTERNATIVES = (
    "try again with a network, or take another source: a folder, an archive (.tar, .tgz, .zip), "
    "s3://bucket/prefix or phantom"
)


class KaggleSource(ListedSource):
    """A data set of Kaggle; ``kaggle`` alone is the published set of Kermany et al."""

    scheme: ClassVar[str] = "kaggle"
    spellings: ClassVar[tuple[str, ...]] = ("kaggle", "kaggle:owner/name")

    @property
    def label(self) -> str:
        """The address with the data set's handle."""
        return f"kaggle:{self._handle}"

    @property
    def expected_bytes(self) -> int | None:
        """Total size of the images of the published set, in any version; None for other sets."""
        from cxr.data.fetching import kermany

        is_original = self._handle.partition("/versions/")[0] == kermany.KAGGLE_HANDLE
        return kermany.KAGGLE_BYTES if is_original else None

    @property
    def remedy(self) -> str:
        """Delete the cache, because a new download would be taken from it."""
        return f"delete {self._cache} and fetch again"

    def open(self) -> SourceContents:
        """Download the data set, and list its folder."""
        from cxr.storage.contents import FolderContents

        return FolderContents(download(self._handle, self._cache), self.label)

    @property
    def _handle(self) -> str:
        from cxr.data.fetching import kermany

        return self.request.source.partition(":")[2] or kermany.KAGGLE_HANDLE

    @property
    def _cache(self) -> Path:
        return self.request.downloads / "kaggle"


def download(handle: str, cache: Path) -> Path:
    """Download a data set, or find it in the cache.

    Args:
        handle: ``owner/name``, or ``owner/name/versions/N`` for one version, which a cache can give offline.
        cache: folder of kagglehub's cache; an interrupted download continues there.

    Returns:
        Folder of the unpacked data set.

    Raises:
        SourceError: if Kaggle cannot be reached, refuses, or sends a damaged archive.
    """
    if not _HANDLE.fullmatch(handle):
        raise SourceError(
            f"expected kaggle:owner/name, received source=kaggle:{handle}; copy it from the page's address"
        )
    # These imports take a fifth of a second, which other sources need not wait for.
    import requests
    from kagglesdk.kaggle_env import get_endpoint, get_env  # type: ignore[import-untyped]

    with _kagglehub_environment(cache):
        import kagglehub
        from kagglehub import exceptions

        failures = (
            requests.RequestException,
            exceptions.BackendError,
            exceptions.CredentialError,
            exceptions.DataCorruptionError,
            exceptions.KaggleEnvironmentError,
            exceptions.NotFoundError,
            exceptions.UnauthenticatedError,
            zipfile.BadZipFile,
            OSError,
            ValueError,
        )
        try:
            if "/versions/" not in handle:
                # kagglehub waits without limit for a network that drops packets.
                requests.head(get_endpoint(get_env()), timeout=CONNECT_TIMEOUT)
            return Path(kagglehub.dataset_download(handle))
        except (requests.ConnectionError, requests.Timeout) as error:
            raise SourceError(
                f"no network: could not reach Kaggle for source=kaggle:{handle} ({_root_cause(error)}); {_ALTERNATIVES}"
            ) from error
        except failures as error:
            if is_disk_full(error):
                raise
            raise SourceError(
                f"expected the data set from Kaggle, received a refusal or a damaged file for "
                f"source=kaggle:{handle} ({_root_cause(error)}); check the handle, or {_ALTERNATIVES}"
            ) from error


@contextmanager
def _kagglehub_environment(cache: Path) -> Iterator[None]:
    """Point kagglehub at the cache, and keep its notices off standard output."""
    settings = {"KAGGLEHUB_CACHE": str(cache.resolve()), "KAGGLEHUB_VERBOSITY": "error"}
    previous = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _root_cause(error: Exception) -> str:
    """Innermost cause of a chain of network errors, on one line."""
    return " ".join(str(error).split()).rpartition("Caused by ")[2].rstrip(")")[:300]

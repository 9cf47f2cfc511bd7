"""Public data sets of Kaggle, downloaded without an account and resumably by kagglehub."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr.errors import SourceError

PATIENCE = 10
"""Seconds after which an unanswered connection counts as no network."""

_HANDLE = re.compile(r"\w[\w.-]*/\w[\w.-]*(/versions/\d+)?")
_WAYS_OUT = (
    "try again with a network, or take another source: a folder, an archive (.tar, .tgz, .zip), "
    "s3://bucket/prefix or phantom"
)


def download(handle: str, cache: Path) -> Path:
    """Download a data set, or find it in the cache.

    Args:
        handle: ``owner/name``, or ``owner/name/versions/N`` for one version, which a cache can give offline.
        cache: folder of kagglehub's cache; an interrupted download goes on there.

    Returns:
        Folder of the unpacked data set.

    Raises:
        SourceError: if Kaggle cannot be reached, refuses, or sends a damaged archive.
    """
    if not _HANDLE.fullmatch(handle):
        raise SourceError(
            f"expected kaggle:owner/name, received source=kaggle:{handle}; copy it from the page's address"
        )
    # These take a fifth of a second, which other sources need not wait for.
    import requests
    from kagglesdk.kaggle_env import get_endpoint, get_env  # type: ignore[import-untyped]

    with _environment(cache):
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
                # kagglehub waits without limit for a network that swallows packets.
                requests.head(get_endpoint(get_env()), timeout=PATIENCE)
            return Path(kagglehub.dataset_download(handle))
        except (requests.ConnectionError, requests.Timeout) as error:
            raise SourceError(
                f"no network: could not reach Kaggle for source=kaggle:{handle} ({_reason(error)}); {_WAYS_OUT}"
            ) from error
        except failures as error:
            raise SourceError(
                f"expected the data set from Kaggle, received a refusal or a damaged file for "
                f"source=kaggle:{handle} ({_reason(error)}); check the handle, or {_WAYS_OUT}"
            ) from error


@contextmanager
def _environment(cache: Path) -> Iterator[None]:
    """Point kagglehub at the cache and keep its notices off standard output."""
    settings = {"KAGGLEHUB_CACHE": str(cache.resolve()), "KAGGLEHUB_VERBOSITY": "error"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _reason(error: Exception) -> str:
    """Innermost cause of a chain of network errors, on one line."""
    return " ".join(str(error).split()).rpartition("Caused by ")[2].rstrip(")")[:300]

"""A version of the data folder from a DVC remote, by the md5 that its pointer ``data.dvc`` names."""

from __future__ import annotations

import getpass
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cxr.data.sources.fetching import S3
from cxr.data.version import folder_md5
from cxr.errors import SourceError
from cxr.storage.contents import some

if TYPE_CHECKING:
    from dvc.repo import Repo

WORK = "dvc"
"""Folder of what has come so far, inside the downloads."""

_REMOTE = "source"
_AGAIN = "run the same command again, it goes on from there"


def bring_version(remote: str, version: str, folder: Path, *, downloads: Path, endpoint_url: str | None = None) -> None:
    """Fill a folder with one version of the data, exactly as it was when DVC pushed it.

    DVC itself does the work, in a repository of its own without git. Files that have come whole are kept in
    ``downloads`` until the version is complete.

    Args:
        remote: address of the DVC remote: ``s3://bucket/prefix`` or a folder.
        version: the hash in the pointer, 32 hex digits of md5 with ``.dir`` behind them.
        folder: empty folder to fill.
        downloads: where partial downloads are kept.
        endpoint_url: address of an object store other than Amazon's.

    Raises:
        SourceError: if the remote cannot be read, or doesn't hold the whole version.
    """
    settings = _expect_there(remote, version, downloads, endpoint_url)
    with _repository(remote, settings, downloads / WORK) as repository, _explained(remote, version):
        _download(repository, remote, version)
        _write(repository, version, folder)
    found = folder_md5(folder)
    if found != version:
        raise SourceError(
            f"expected data with md5={version}, received source={remote} with md5={found}; "
            f"delete {downloads / WORK} and run the same command again"
        )


def forget(downloads: Path) -> None:
    """Remove what was kept for going on: the version is in place.

    Args:
        downloads: as for :func:`bring_version`.
    """
    shutil.rmtree(downloads / WORK, ignore_errors=True)


def _expect_there(remote: str, version: str, downloads: Path, endpoint_url: str | None) -> dict[str, Any]:
    """Look for the version's list of files before DVC starts, and give the settings of the remote."""
    listing = f"files/md5/{version[:2]}/{version[2:]}"
    settings: dict[str, Any] = {"url": remote, "verify": True}
    if remote.startswith(S3):
        from cxr.storage.object_store import StoredPrefix

        stored = StoredPrefix(
            f"{remote.rstrip('/')}/{listing}", downloads, endpoint_url=endpoint_url, may_be_empty=True
        )
        there = bool(stored.entries)
        settings |= {"connect_timeout": 5, "read_timeout": 20, "allow_anonymous_login": stored.anonymous}
        if endpoint_url:
            settings["endpointurl"] = endpoint_url
    else:
        place = Path(remote).expanduser().resolve()
        if not place.is_dir():
            raise SourceError(
                f"expected a DVC remote: s3://bucket/prefix or a folder, received source={remote} (no such folder); "
                "check the spelling"
            )
        there = (place / listing).is_file()
        settings["url"] = str(place)
    if not there:
        raise SourceError(
            f"expected a DVC remote that holds data_version={version}, received source={remote} without it; "
            "compare with the md5 in data.dvc, and push from where the data are (dvc push)"
        )
    return settings


@contextmanager
def _repository(remote: str, settings: dict[str, Any], work: Path) -> Iterator[Repo]:
    """Open a repository without git whose only remote is the source; all that DVC writes stays inside it."""
    from dvc.repo import Repo

    work = work.resolve()
    (work / ".dvc").mkdir(parents=True, exist_ok=True)
    config = {
        "core": {"no_scm": True, "site_cache_dir": str(work / "site")},
        "remote": {_REMOTE: settings},
        "cache": {"dir": str(work / "cache"), "type": ["reflink", "hardlink", "copy"]},
    }
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in passwd; DVC asks for the name
        os.environ["LOGNAME"] = str(os.getuid())
    with Repo(str(work), config=config) as repository:
        yield repository


def _download(repository: Repo, remote: str, version: str) -> None:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.transfer import transfer
    from dvc_data.hashfile.tree import Tree

    source, cache = repository.cloud.get_remote(_REMOTE).odb, repository.cache.local
    absent: list[str] = []
    with (
        tqdm(unit=" files", desc=f"fetch {version[:8]} from {remote}", disable=None) as bar,
        _reasons() as reasons,
    ):
        result = transfer(
            source, cache, [HashInfo("md5", version)],
            verify=True, shallow=False, callback=_progress(bar),
            validate_status=lambda status: absent.extend(sorted(str(one.value) for one in status.missing)),
        )  # fmt: skip
    if absent:
        raise SourceError(
            f"expected a DVC remote with all files of data_version={version}, received source={remote} without "
            f"{len(absent):,} of them (md5 {some(absent)}); push again from where the data are (dvc push)"
        )
    # Files of another content than their name says are dropped by DVC, and it says nothing of them.
    tree = None if result.failed else Tree.load(cache, HashInfo("md5", version))
    failed = result.failed or {oid for _, _, oid in tree or () if not cache.exists(str(oid.value))}
    if failed:
        why = "; ".join(dict.fromkeys(reasons)) or "damaged in the remote or on the way"
        raise SourceError(
            f"expected all files of data_version={version}, received source={remote} that failed for "
            f"{len(failed):,} of them ({why[:300]}); {_AGAIN}"
        )


def _write(repository: Repo, version: str, folder: Path) -> None:
    from dvc_data.hashfile.checkout import checkout
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    cache = repository.cache.local
    checkout(str(folder.resolve()), cache.fs, Tree.load(cache, HashInfo("md5", version)), cache)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)  # DVC protects the files of its cache, which these no longer belong to


def _progress(bar: tqdm[Any]) -> Any:
    """A callback of DVC that moves a bar by files."""
    from fsspec.callbacks import Callback

    class Progress(Callback):  # type: ignore[misc]  # fsspec has no types
        def set_size(self, size: int) -> None:
            if size > (bar.total or 0):  # of all files first, then of each part of them
                bar.reset(size)

        def relative_update(self, inc: int = 1) -> None:
            bar.update(inc)

    return Progress()


@contextmanager
def _reasons() -> Iterator[list[str]]:
    """Collect why single files failed, which DVC only logs, instead of filling the terminal with it."""
    reasons: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                reasons.append(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")

    logger, handler = logging.getLogger("dvc_data"), Collector()
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield reasons
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


@contextmanager
def _explained(remote: str, version: str) -> Iterator[None]:
    """Turn what DVC and its file systems raise into one sentence; the remote did answer at first."""
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.checkout import CheckoutError
    from dvc_objects.errors import ObjectDBError, ObjectFormatError
    from dvc_objects.fs.errors import AuthError, ConfigError

    from cxr.storage.connection import FAILURES

    known = (OSError, DvcException, CheckoutError, ObjectDBError, ObjectFormatError, AuthError, ConfigError)
    try:
        yield
    except (*known, *FAILURES) as error:
        raise SourceError(
            f"expected data_version={version} from source={remote}, received a failure "
            f"({type(error).__name__}: {str(error)[:300]}); {_AGAIN}"
        ) from error

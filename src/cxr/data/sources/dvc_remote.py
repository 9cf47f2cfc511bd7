"""One version of the data folder, from a DVC remote; the pointer ``data.dvc`` holds the version's md5."""

from __future__ import annotations

import getpass
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.data.fetching.source import DataSource
from cxr.errors import SourceError
from cxr.files import is_disk_full

if TYPE_CHECKING:
    from dvc.repo import Repo
    from tqdm import tqdm

REPOSITORY_FOLDER = "dvc"
"""Folder of partial downloads, inside ``downloads``."""

_REMOTE = "source"
_RUN_AGAIN = "run the same command again, it continues from there"


class DvcRemoteSource(DataSource):
    """One version of the data in a DVC remote: ``s3://bucket/prefix`` or a folder.

    The request chooses this source by its ``data_version``. DVC itself does the work, in a repository without git of
    its own. Files that have come whole are kept in ``downloads`` until the version is complete.
    """

    @property
    def label(self) -> str:
        """Address of an object store, or the name of a folder."""
        return self.request.source.rstrip("/") if self._is_object_store else self._path.resolve().name

    @property
    def local_path(self) -> Path | None:
        """The remote's folder, if it is one that exists."""
        return self._path if not self._is_object_store and self._path.exists() else None

    @property
    def _is_object_store(self) -> bool:
        return self.request.source.startswith("s3://")

    @property
    def _path(self) -> Path:
        return Path(self.request.source).expanduser()

    @property
    def _version(self) -> str:
        return str(self.request.data_version)

    @property
    def _repository_folder(self) -> Path:
        return self.request.downloads / REPOSITORY_FOLDER

    def fill(self, folder: Path) -> None:
        """Write the version exactly as it was when DVC pushed it, or index its images where they are.

        Args:
            folder: empty folder to fill.

        Raises:
            SourceError: if the remote cannot be read, or does not hold the whole version.
        """
        if self.request.index:
            from cxr.data.fetching.dvc_version import index_version

            index_version(self.request, folder)
            return
        from cxr.data.dvc_hashes import folder_md5

        settings = self._check_remote()
        with _open_repository(settings, self._repository_folder) as repository, self._failures_as_source_errors():
            self._download(repository)
            _check_out(repository, self._version, folder)
        received = folder_md5(folder)
        if received != self._version:
            raise SourceError(
                f"expected data with md5={self._version}, received source={self.request.source} with md5={received}; "
                f"delete {self._repository_folder} and run the same command again"
            )

    def remove_downloads(self) -> None:
        """Remove the repository of the download."""
        shutil.rmtree(self._repository_folder, ignore_errors=True)

    def _check_remote(self) -> dict[str, Any]:
        """Check before DVC starts that the version is there, and give DVC's settings for the remote."""
        source, version = self.request.source, self._version
        listing = f"files/md5/{version[:2]}/{version[2:]}"
        settings: dict[str, Any] = {"url": source, "verify": True}
        if self._is_object_store:
            from cxr.storage.object_store import ObjectStoreContents

            endpoint_url = self.request.endpoint_url
            objects = ObjectStoreContents(
                f"{source.rstrip('/')}/{listing}", self.request.downloads, endpoint_url=endpoint_url, may_be_empty=True
            )
            exists = bool(objects.entries)
            settings |= {"connect_timeout": 5, "read_timeout": 20, "allow_anonymous_login": objects.anonymous}
            if endpoint_url:
                settings["endpointurl"] = endpoint_url
        else:
            folder = self._path.resolve()
            if not folder.is_dir():
                raise SourceError(
                    f"expected a DVC remote: s3://bucket/prefix or a folder, received source={source} (no such "
                    "folder); check the spelling"
                )
            exists = (folder / listing).is_file()
            settings["url"] = str(folder)
        if not exists:
            from cxr.data.fetching.dvc_version import unknown_version

            raise unknown_version(version, source)
        return settings

    def _download(self, repository: Repo) -> None:
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.transfer import transfer
        from dvc_data.hashfile.tree import Tree
        from tqdm import tqdm

        source, version = self.request.source, self._version
        remote, cache = repository.cloud.get_remote(_REMOTE).odb, repository.cache.local
        missing: list[str] = []
        with (
            tqdm(unit=" files", desc=f"fetch {version[:8]} from {source}", disable=None) as bar,
            _collect_failures() as failures,
        ):
            result = transfer(
                remote, cache, [HashInfo("md5", version)],
                verify=True, shallow=False, callback=_progress_callback(bar),
                validate_status=lambda status: missing.extend(sorted(str(file.value) for file in status.missing)),
            )  # fmt: skip
        if missing:
            from cxr.data.fetching.dvc_version import incomplete_version

            raise incomplete_version(version, source, missing)
        # DVC drops files whose content does not match their name, without any message.
        tree = None if result.failed else Tree.load(cache, HashInfo("md5", version))
        failed = result.failed or {file for _, _, file in tree or () if not cache.exists(str(file.value))}
        if failed:
            reasons = "; ".join(dict.fromkeys(failures)) or "damaged in the remote or on the way"
            raise SourceError(
                f"expected all files of data_version={version}, received source={source} that failed for "
                f"{len(failed):,} of them ({reasons[:300]}); {_RUN_AGAIN}"
            )

    @contextmanager
    def _failures_as_source_errors(self) -> Iterator[None]:
        """Turn the errors of DVC and its file systems into one sentence; the remote did answer at first."""
        from dvc.exceptions import DvcException
        from dvc_data.hashfile.checkout import CheckoutError
        from dvc_objects.errors import ObjectDBError, ObjectFormatError
        from dvc_objects.fs.errors import AuthError, ConfigError

        from cxr.storage.connection import AWS_ERRORS

        dvc_errors = (OSError, DvcException, CheckoutError, ObjectDBError, ObjectFormatError, AuthError, ConfigError)
        try:
            yield
        except (*dvc_errors, *AWS_ERRORS) as error:
            if is_disk_full(error):
                raise
            raise SourceError(
                f"expected data_version={self._version} from source={self.request.source}, received a failure "
                f"({type(error).__name__}: {str(error)[:300]}); {_RUN_AGAIN}"
            ) from error


@contextmanager
def _open_repository(settings: dict[str, Any], folder: Path) -> Iterator[Repo]:
    """Open a repository without git whose only remote is the source; all that DVC writes stays inside it."""
    from dvc.repo import Repo

    folder = folder.resolve()
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    config = {
        "core": {"no_scm": True, "site_cache_dir": str(folder / "site")},
        "remote": {_REMOTE: settings},
        "cache": {"dir": str(folder / "cache"), "type": ["reflink", "hardlink", "copy"]},
    }
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry in passwd; DVC asks for the name
        os.environ["LOGNAME"] = str(os.getuid())
    with Repo(str(folder), config=config) as repository:
        yield repository


def _check_out(repository: Repo, version: str, folder: Path) -> None:
    from dvc_data.hashfile.checkout import checkout
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    cache = repository.cache.local
    checkout(str(folder.resolve()), cache.fs, Tree.load(cache, HashInfo("md5", version)), cache)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)  # DVC write-protects the files of its cache; these no longer belong to it


def _progress_callback(bar: tqdm[Any]) -> Any:
    """A callback for DVC that moves a bar by files."""
    from fsspec.callbacks import Callback

    class Progress(Callback):  # type: ignore[misc]  # fsspec has no types
        def set_size(self, size: int) -> None:
            if size > (bar.total or 0):  # DVC first sets the number of all files, then that of each part
                bar.reset(size)

        def relative_update(self, inc: int = 1) -> None:
            bar.update(inc)

    return Progress()


@contextmanager
def _collect_failures() -> Iterator[list[str]]:
    """Collect why single files failed: DVC only logs it, and the log would fill the terminal."""
    failures: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                failures.append(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")

    logger, handler = logging.getLogger("dvc_data"), Collector()
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield failures
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate

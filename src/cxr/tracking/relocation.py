"""A local store that was moved or copied: the addresses of its files are corrected when the store is opened.

MLflow keeps the address of the files of each run and each model as an absolute path. In another place it would read
from and write to the place where the store was made. The folder of the files is always beside the store's file, and
that is where the addresses have to lead.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cxr.errors import MissingInputError, RegistryError

log = logging.getLogger(__name__)

ARTIFACTS_FOLDER = "mlruns"
"""Folder of the files of runs and models, beside the file of a local store."""
ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}
"""Tables and columns of MLflow's database that hold addresses of files."""
LOCK_SECONDS = 30.0
"""How long to wait for another process that writes to the file, such as an MLflow server."""


def correct_addresses(file: Path) -> None:
    """Let all addresses of a store that was moved or copied lead to the folder beside its file.

    Addresses elsewhere on purpose stay: those in an object store or of a server, in a folder of another name, and in a
    folder that has files of this store which the folder beside the file lacks. Two spellings of one folder, such as a
    symbolic link, are the same place. All addresses are changed in one transaction, or none.

    Args:
        file: absolute path of the store's file, whose tables exist.

    Raises:
        MissingInputError: if the store was moved or copied without the folder of its files.
        RegistryError: if the addresses have to be changed and the file cannot be written.
    """
    place = StorePlace(file)
    with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as database:
        former = _former_folders(database, place)
        if not former:
            return
        try:
            with database:
                for folder in former:
                    _replace(database, folder.address, place.address)
        except sqlite3.Error as error:
            raise RegistryError(
                f"expected a store whose file can be written, because it was moved or copied from "
                f"{former[0].path.parent} and its addresses have to be changed, received file={str(file)!r}: {error}; "
                "make the file and its folder writable"
            ) from error
    for folder in former:
        log.info("the MLflow store was moved or copied: its files are in %s, no longer in %s", place.path, folder.path)


@dataclass(frozen=True)
class StorePlace:
    """Where a local store is.

    Attributes:
        file: absolute path of the store's file.
    """

    file: Path

    @property
    def path(self) -> Path:
        """Folder for the files of runs and models."""
        return self.file.parent / ARTIFACTS_FOLDER

    @property
    def address(self) -> str:
        """The same folder for MLflow, which decodes percent signs, also in plain paths."""
        return str(self.path).replace("%", "%25")


@dataclass(frozen=True)
class _OtherFolder:
    """A folder that addresses of a store name, and that is not spelled as the one beside the store's file.

    Attributes:
        address: the folder as the addresses have it.
        runs: folders of runs inside, relative to it.
        models: folders of models inside, relative to it.
    """

    address: str
    runs: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The folder as MLflow finds it."""
        return Path(unquote(urlsplit(self.address).path if self.address.startswith("file:") else self.address))

    def has_files_in(self, path: Path) -> bool:
        """Whether files of a run or a model are in a folder."""
        return any((path / name).exists() for name in (*self.models, *self.runs))


def _former_folders(database: sqlite3.Connection, place: StorePlace) -> list[_OtherFolder]:
    """Folders that the store has left; usually none."""
    others = [
        folder for folder in _other_folders(database, place) if not _is_same(folder.path.parent, place.path.parent)
    ]
    arrived = [folder for folder in others if folder.has_files_in(place.path)]
    # If files have arrived, or are logged here already, all other folders are elsewhere on purpose.
    if arrived or not others or _is_used(database, place):
        return arrived
    return [folder for folder in others if _was_left(folder, place)]


def _other_folders(database: sqlite3.Connection, place: StorePlace) -> Iterable[_OtherFolder]:
    """Folders of the name :data:`ARTIFACTS_FOLDER` in addresses of the store, but for the one beside its file."""
    folders: dict[str, _OtherFolder] = {}
    for table in ("experiments", "runs", "logged_models"):
        (column,) = ADDRESSES[table]
        query = f"SELECT {column} FROM {table} WHERE substr({column} || '/', 1, length(:place)) <> :place"  # noqa: S608
        for (address,) in database.execute(query, {"place": f"{place.address}/"}):
            parent, separator, name = f"{address}/".rpartition(f"/{ARTIFACTS_FOLDER}/")
            if separator and address.startswith(("/", "file:/")):
                folder = f"{parent}/{ARTIFACTS_FOLDER}"
                entry = folders.setdefault(folder, _OtherFolder(folder))
                # The address of an experiment says nothing: several stores may use it.
                {"runs": entry.runs, "logged_models": entry.models}.get(table, []).append(name)
    return folders.values()


def _was_left(folder: _OtherFolder, place: StorePlace) -> bool:
    """Whether a store that has no files in its place has left this folder."""
    original = folder.path.parent / place.file.name
    is_copy = original.exists() and not _is_same(original, place.file)
    if folder.has_files_in(folder.path):
        if is_copy:
            raise MissingInputError(
                f"expected the files of the store's runs in {place.path}, received file={str(place.file)!r}, a copy "
                f"of {original} without them; copy {folder.path} to {place.path.parent} as well, or remove "
                f"{place.file} to begin a new store"
            )
        return False
    is_gone = not folder.path.exists()
    if folder.models and is_gone and not place.path.exists():
        raise MissingInputError(
            f"expected the files of the store's models in {place.path}, received file={str(place.file)!r} without "
            f"this folder, and without {folder.path}, where they were; bring the folder {ARTIFACTS_FOLDER} to "
            f"{place.path.parent} as well, or create an empty one there if the files are lost"
        )
    return is_copy or is_gone


def _is_used(database: sqlite3.Connection, place: StorePlace) -> bool:
    """Whether an experiment of the store has its files beside the store's file."""
    query = "SELECT 1 FROM experiments WHERE substr(artifact_location || '/', 1, length(:place)) = :place"
    return database.execute(query, {"place": f"{place.address}/"}).fetchone() is not None


def _replace(database: sqlite3.Connection, former: str, new: str) -> None:
    for table, columns in ADDRESSES.items():
        for column in columns:
            statement = (
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:former) + 1) "  # noqa: S608
                f"WHERE substr({column} || '/', 1, length(:former) + 1) = :former || '/'"
            )
            database.execute(statement, {"former": former, "new": new})


def _is_same(first: Path, second: Path) -> bool:
    """Whether two paths are one file or folder, however they are spelled."""
    return first.exists() and second.exists() and first.samefile(second)

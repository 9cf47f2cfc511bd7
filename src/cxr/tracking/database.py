"""The SQLite file of a local store: it is made and upgraded whole, whenever the process that does so is killed.

MLflow changes tables step by step in the file itself, which takes seconds. A process that is killed meanwhile leaves a
file that MLflow neither uses nor repairs. Here MLflow works on a file of its own, which then takes the place of the
store's file in one step.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Collection
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import MissingInputError, RegistryError
from cxr.files import scratch_folder, whole_file
from cxr.tracking import health
from cxr.tracking.relocation import LOCK_SECONDS, StorePlace

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

log = logging.getLogger(__name__)

REVISION_TABLE = "alembic_version"
"""Table with one row: the step of MLflow's schema that the tables have reached."""
ROWS_OF_EMPTY_STORE = {
    REVISION_TABLE: "1",
    "experiments": "experiment_id = 0 AND name = 'Default'",
    "workspaces": "name = 'default'",
}
"""Table to condition of the rows that MLflow writes by itself."""
SIDE_FILES = ("-journal", "-wal", "-shm")
"""What SQLite appends to the name of a database for its unfinished changes; it applies them to any file of the name."""


def prepare_database(file: Path, *, writable: bool, create: bool) -> None:
    """Make the file of a store if there is none, upgrade an older one, and refuse one that MLflow would spoil.

    A file that holds nothing, because the process that made it was killed, is made anew. A file that holds anything is
    only ever replaced by an upgraded copy, and stays beside it under another name.

    Args:
        file: absolute path of the store's file; the caller holds the store's lock if it may be written.
        writable: whether the file may be made or replaced.
        create: whether to make a file where there is none.

    Raises:
        MissingInputError: if the file has lost its content, or is not there and may not be made.
        RegistryError: if it holds tables of another program or of a newer MLflow, lacks tables, or has to be upgraded
            and cannot be.
        sqlite3.Error: if it cannot be read.
    """
    # SQLite keeps its side files beside the file that a symbolic link names.
    database = file.resolve()
    tables = _table_names(database)
    if not tables:
        _refuse_loss(file)
        if not create:
            refuse_absence(file)
        _require_writable(file, writable, "it is not there or empty, and has to be made")
        _make(database)
        return
    revision = _revision(database) if REVISION_TABLE in tables else None
    missing = _mlflow_tables() - tables
    if revision == _schema().get_current_head():
        if missing:
            raise _unusable(file, f"lacks the tables {', '.join(sorted(missing))}; restore it from a backup")
        return
    if "experiments" not in tables and not tables <= {REVISION_TABLE, *_mlflow_tables()}:
        raise _unusable(file, "is a database of another program; name another file in tracking.tracking_uri")
    if revision is not None and not _is_known(revision):
        import mlflow

        raise _unusable(
            file,
            f"was made by a newer MLflow than {mlflow.__version__} (its tables are of revision {revision}); install "
            "the packages with which it was made, or name another store in tracking.tracking_uri",
        )
    if not _holds_rows(database, tables):
        _refuse_loss(file)
        _require_writable(file, writable, "it was never finished, holds nothing, and has to be made anew")
        log.warning("the MLflow store %s was never finished and holds nothing: it is made anew", file)
        _make(database)
        return
    _require_writable(file, writable, f"it was made by an older MLflow (revision {revision}) and has to be upgraded")
    _upgrade(file, database, revision)


def refuse_absence(file: Path) -> None:
    """Refuse a store that is not there, or that has lost its content.

    Args:
        file: absolute path of the store's file.

    Raises:
        MissingInputError: if there is no file, or an empty one.
    """
    if _is_absent(file):
        _refuse_loss(file)
        raise MissingInputError(
            f"expected an MLflow store with registered models, received file={str(file)!r}, which is not there or "
            "empty; run `cxr register`, or name another store in tracking.tracking_uri"
        )


def _is_absent(file: Path) -> bool:
    try:
        return file.stat().st_size == 0
    except FileNotFoundError:
        return True


def _refuse_loss(file: Path) -> None:
    """Refuse a file that holds nothing beside files of runs: it has lost its content.

    A file that is not there is a new store.

    Args:
        file: absolute path of the store's file.

    Raises:
        MissingInputError: if its content is lost.
    """
    runs = StorePlace(file).path
    if file.exists() and any(path.is_file() for path in runs.rglob("*")):
        raise MissingInputError(
            f"expected an MLflow store with the runs and versions whose files are in {runs}, received "
            f"file={str(file)!r}, which holds none ({file.stat().st_size} bytes): its content is lost; restore it from "
            f"a backup, or move it and {runs.name} to another folder to begin a new store"
        )


def _make(database: Path) -> None:
    """Make the tables elsewhere, and put the file in its place; an older file that holds nothing is renamed."""
    with scratch_folder() as scratch:
        new = scratch / "mlflow.db"
        _migrate(new)
        _set_aside(database)
        _put(new, database)


def _upgrade(file: Path, database: Path, revision: str | None) -> None:
    """Upgrade a copy, and put it in the place of the file, which stays beside it under another name."""
    former = database.with_name(f"{database.name}.before-upgrade-{revision}")
    log.info("upgrading the MLflow store %s, made by an older MLflow", file)
    with closing(_open(database)) as writer, scratch_folder() as scratch:
        writer.execute("PRAGMA journal_mode = DELETE")  # a write-ahead log would be applied to the new file
        writer.execute("BEGIN IMMEDIATE")  # nobody adds to the file after it was copied
        copy, upgraded = scratch / "former.db", scratch / "mlflow.db"
        with closing(_open(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        shutil.copyfile(copy, upgraded)
        try:
            _migrate(upgraded)
        except Exception as error:
            if not health.is_store_error(error):
                raise
            raise _unusable(
                file,
                f"cannot be upgraded from revision {revision} of its tables ({health.first_line(error)}); it was not "
                "changed: restore it from a backup, or name another store in tracking.tracking_uri",
            ) from error
        _put(copy, former, like=database)
        _put(upgraded, database, like=database)
    log.warning("the MLflow store %s was upgraded; the former one is %s", file, former)


def _migrate(database: Path) -> None:
    """Let MLflow make or upgrade the tables of a file, as its command ``mlflow db upgrade`` does."""
    from mlflow.db import upgrade

    upgrade.main([f"sqlite:///{database}"], standalone_mode=False)


def _put(source: Path, target: Path, like: Path | None = None) -> None:
    """Write a copy of a database in one step, with the permissions of another file if one is named."""
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
        with partial.open("rb+") as copy:
            os.fsync(copy.fileno())
        if like is not None:
            shutil.copymode(like, partial)
            with suppress(PermissionError):
                os.chown(partial, like.stat().st_uid, like.stat().st_gid)


def _set_aside(database: Path) -> None:
    """Rename a file that holds nothing, because a process may still have it open, and what SQLite keeps beside it."""
    suffix = f".unfinished-{datetime.now(UTC):%Y-%m-%dT%H%M%S}"
    # The file itself comes last: without it, SQLite would apply the side files to the next one of its name.
    for side in (*SIDE_FILES, ""):
        path = database.with_name(f"{database.name}{side}")
        if path.exists() and path.stat().st_size == 0:
            path.unlink()
        elif path.exists():
            path.rename(database.with_name(f"{database.name}{suffix}{side}"))


def _open(database: Path) -> sqlite3.Connection:
    """Open a file that is there; SQLite falls back to reading if it cannot be written."""
    return sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS, isolation_level=None)


def _table_names(database: Path) -> set[str]:
    if _is_absent(database):
        return set()
    with closing(_open(database)) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {str(name) for (name,) in rows if not name.startswith("sqlite_")}


def _revision(database: Path) -> str | None:
    with closing(_open(database)) as connection:
        row = connection.execute(f"SELECT version_num FROM {REVISION_TABLE}").fetchone()  # noqa: S608
        return None if row is None else str(row[0])


def _holds_rows(database: Path, tables: Collection[str]) -> bool:
    """Whether there is a row that MLflow has not written by itself."""
    with closing(_open(database)) as connection:
        for table in tables:
            own = ROWS_OF_EMPTY_STORE.get(table, "0")
            if connection.execute(f'SELECT 1 FROM "{table}" WHERE NOT ({own}) LIMIT 1').fetchone():  # noqa: S608
                return True
    return False


def _require_writable(file: Path, writable: bool, reason: str) -> None:
    if not writable:
        raise _unusable(file, f"cannot be used yet: {reason}; {health.MAKE_WRITABLE}")


def _unusable(file: Path, reason: str) -> RegistryError:
    return RegistryError(f"expected an MLflow store of this project, received file={str(file)!r}: it {reason}")


@cache
def _schema() -> ScriptDirectory:
    """MLflow's steps from one revision of its tables to the next."""
    import mlflow
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))


def _is_known(revision: str) -> bool:
    from alembic.util.exc import CommandError

    try:
        return _schema().get_revision(revision) is not None
    except CommandError:
        return False


@cache
def _mlflow_tables() -> frozenset[str]:
    """Names of the tables that MLflow expects."""
    from mlflow.store.db import utils  # noqa: F401  # imports the modules that name the tables
    from mlflow.store.db.base_sql_model import Base

    return frozenset(Base.metadata.tables)

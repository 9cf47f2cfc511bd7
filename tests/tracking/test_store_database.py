"""The file of a local store is whole or not there, is never spoiled, and is read where it cannot be written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cxr.errors import CxrError, MissingInputError, RegistryError
from cxr.promotion.log import CHAMPION
from cxr.tracking.aliases import Aliases, read_promotion_log
from cxr.tracking.registry_reader import alias_versions
from cxr.tracking.store import Store
from support.forked_processes import ForkedProcess
from support.model_folders import write_store
from support.sweeps import exhaustive

NAME = "pneumonia-classifier"
OLD_REVISION = "27a6a02d2cf1"
"""An early one of the revisions through which MLflow takes its tables."""

CONNECT_AND_DIE = """
import os, signal, sys
from cxr.tracking.store import Store

uri, folder, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
renamed = 0

def die(event, arguments):
    global renamed
    if event == "os.rename" and str(arguments[1]).startswith(folder):
        renamed += 1
        if renamed == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
Store(uri).connect()
"""
"""Connects, and is killed just before a file of the store's folder takes its final name for the n-th time."""


def kill_while_connecting(folder: Path, scratch: Path, point: int | str) -> None:
    """Let a process connect to the store of a folder, and kill it at a rename, or when it has made so many bytes."""
    last = point if isinstance(point, int) else 0
    arguments = (f"sqlite:///{folder}/mlflow.db", str(folder), str(last))
    process = ForkedProcess(CONNECT_AND_DIE, *arguments, environment=os.environ | {"TMPDIR": str(scratch)})
    while isinstance(point, str) and process.poll() is None:
        if any(path.stat().st_size >= int(point) for path in scratch.glob("cxr-*/mlflow.db")):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.005)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL


def write_old_store(folder: Path, *, runs: int) -> Path:
    """Write a store of an old MLflow, or, without runs, of a new one that was killed while it made the tables."""
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    folder.mkdir(exist_ok=True)
    file = folder / "mlflow.db"
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    Base.metadata.create_all(engine)
    command.upgrade(utils._get_alembic_config(str(engine.url)), OLD_REVISION)
    experiments = [(run, f"experiment {run}", f"{folder}/mlruns/{run}") for run in range(runs)]
    rows = [(f"{run:032d}", f"run {run}", f"{folder}/mlruns/{run}/a/artifacts", run) for run in range(runs)]
    with closing(sqlite3.connect(file)) as database, database:
        database.executemany("INSERT INTO experiments VALUES (?, ?, ?, 'active')", experiments)
        database.executemany(
            "INSERT INTO runs (run_uuid, name, status, user_id, start_time, lifecycle_stage, artifact_uri, "
            "experiment_id) VALUES (?, ?, 'FINISHED', 'reader', 1, 'active', ?, ?)",
            rows,
        )
    return file


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


def dump(file: Path) -> list[str]:
    """All that a database holds."""
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


def write_file_of_a_run(folder: Path) -> None:
    (folder / "mlruns" / "1").mkdir(parents=True)
    (folder / "mlruns" / "1" / "card.json").write_text("{}")


def connect(file: Path) -> Store:
    store = Store(f"sqlite:///{file}")
    store.connect()
    return store


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for temporary files, of this process and of those that it starts."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def protect() -> Iterator[Callable[[Path], None]]:
    """Makes files and folders that this user cannot write, even if this user is root."""
    protected: list[Path] = []
    is_root = os.geteuid() == 0

    def make_read_only(path: Path) -> None:
        if not is_root:
            path.chmod(path.stat().st_mode & ~0o222)
        elif subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False).returncode:
            pytest.skip("root can write every file here: the file system has no immutable files")
        protected.append(path)

    try:
        yield make_read_only
    finally:
        for path in protected:
            if is_root:
                subprocess.run(["chattr", "-i", str(path)], check=True)
            else:
                path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize("points", [("300000",), *exhaustive((("1", "300000", 1),))], ids=["one", "all"])
def test_a_store_whose_making_is_killed_is_not_there_and_the_next_process_makes_it(
    tmp_path: Path, scratch: Path, points: tuple[int | str, ...]
) -> None:
    project = tmp_path / "project"
    for point in points:
        kill_while_connecting(project, scratch, point)
        assert "mlflow.db" not in names(project)
    store = connect(project / "mlflow.db")
    assert store.client.create_run(store.experiment_id("pneumonia"))
    assert names(project) == ["mlflow.db", "mlflow.db.lock"] and not names(scratch)


@pytest.mark.parametrize("points", [(2,), *exhaustive((("300000", 1, 2),))], ids=["one", "all"])
def test_a_store_whose_upgrade_is_killed_is_as_it_was_and_the_next_process_upgrades_it(
    tmp_path: Path, scratch: Path, points: tuple[int | str, ...]
) -> None:
    project = tmp_path / "project"
    file = write_old_store(project, runs=3)
    former, content = file.read_bytes(), dump(file)
    for point in points:
        kill_while_connecting(project, scratch, point)
        assert file.read_bytes() == former
    file.chmod(0o660)
    client = connect(file).client
    assert len(client.search_runs([str(number) for number in range(3)])) == 3
    assert client.get_run(f"{1:032d}").info.run_name == "run 1"
    backup = project / f"mlflow.db.before-upgrade-{OLD_REVISION}"
    assert dump(backup) == content and file.stat().st_mode & 0o777 == 0o660
    assert names(project) == ["mlflow.db", backup.name, "mlflow.db.lock"] and not names(scratch)


def test_an_unfinished_store_that_holds_nothing_is_kept_aside_and_made_anew(tmp_path: Path) -> None:
    file = write_old_store(tmp_path, runs=0)
    former = file.read_bytes()
    file.with_name("mlflow.db-journal").write_bytes(b"of a killed process")
    store = connect(file)
    assert store.client.create_run(store.experiment_id("pneumonia"))
    (aside,) = tmp_path.glob("mlflow.db.unfinished-*")
    assert aside.read_bytes() == former


@pytest.mark.parametrize("content", ["no bytes", "no tables", "an unfinished store"])
def test_a_store_without_content_beside_files_of_runs_is_refused_by_readers_and_writers(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "mlflow.db"
    if content == "an unfinished store":
        write_old_store(tmp_path, runs=0)
    else:
        file.touch()
    if content == "no tables":
        change(file, "CREATE TABLE one (a)", "DROP TABLE one")
    write_file_of_a_run(tmp_path)
    before = file.read_bytes()
    store = Store(f"sqlite:///{file}")
    for call in (store.connect, store.connect_existing, lambda: read_promotion_log(store, NAME)):
        with pytest.raises(MissingInputError, match=rf"whose files are in {tmp_path}/mlruns.*restore it from a backup"):
            call()
    assert file.read_bytes() == before


def test_an_empty_file_without_files_of_runs_is_a_new_store_for_those_who_write(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.touch()
    with pytest.raises(MissingInputError, match="run `cxr register`"):
        Store(f"sqlite:///{file}").connect_existing()
    assert not file.stat().st_size
    assert connect(file).experiment_id("pneumonia")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "made by a newer MLflow than"),
        ("UPDATE alembic_version SET version_num = '75868b020152'", "cannot be upgraded.*already exists.*not changed"),
        ("DROP TABLE tags", "lacks the tables tags; restore it from a backup"),
    ],
)
def test_a_store_that_mlflow_would_spoil_is_refused_and_not_changed(
    tmp_path: Path, statement: str, message: str
) -> None:
    file = Path(write_store(tmp_path).removeprefix("sqlite:///"))
    change(file, "INSERT INTO experiments (name, lifecycle_stage) VALUES ('mine', 'active')", statement)
    before = file.read_bytes()
    with pytest.raises(RegistryError, match=message):
        connect(file)
    assert file.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    change(file, "CREATE TABLE studies (study_id INTEGER)")
    before = file.read_bytes()
    with pytest.raises(RegistryError, match="a database of another program; name another file"):
        connect(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("protected", ["mlflow.db", ""])
def test_a_store_that_cannot_be_written_is_read_and_not_written(
    tmp_path: Path, protect: Callable[[Path], None], protected: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    store = Store(write_store(project))
    store.client.create_registered_model(NAME)
    for _ in range(2):
        store.client.create_model_version(NAME, source="file:///nowhere")
    aliases = Aliases(store, NAME)
    assert aliases.log.entries() == [] and store.client.get_experiment_by_name(f"{NAME}: promotions") is None
    aliases.move(aliases.synchronize(), "run", {CHAMPION: "1"}, candidate="1")
    store.client.set_registered_model_alias(NAME, CHAMPION, "2")
    protect(project / protected)
    before = (project / "mlflow.db").read_bytes()
    reader = Store(store.uri)
    assert [entry.kind for entry in read_promotion_log(reader, NAME)] == ["run", "person"]
    assert alias_versions(reader, NAME) == {CHAMPION: "2"}
    for call in (
        Store(store.uri).connect,
        lambda: Aliases(reader, NAME).roll_back(""),
        lambda: Aliases(reader, NAME).release(),
        lambda: Aliases(reader, NAME).synchronize(),
    ):
        with pytest.raises(RegistryError, match=rf"may not write {project / protected}; make the file and its folder"):
            call()
    assert (project / "mlflow.db").read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "advice"),
    [
        (lambda file: file.write_bytes(b"not a database, " * 100), "the file is damaged or another kind of file"),
        (lambda file: file.write_bytes(file.read_bytes()[:200_000]), "the file is damaged; restore it"),
        (lambda file: (file.unlink(), file.mkdir()), "whether the address names a file, not a folder"),
    ],
)
def test_an_error_of_sqlite_says_what_to_do_about_the_file(
    tmp_path: Path, damage: Callable[[Path], object], advice: str
) -> None:
    file = Path(write_store(tmp_path).removeprefix("sqlite:///"))
    damage(file)
    with pytest.raises(CxrError, match=advice) as error:
        connect(file)
    assert "\n" not in str(error.value) and "server" not in str(error.value)


@pytest.mark.parametrize(
    ("statements", "advice"),
    [
        (("PRAGMA max_page_count = 1", "CREATE TABLE two (a)"), "disk is full; make room on the disk"),
        (("PRAGMA query_only = ON", "DROP TABLE one"), "readonly database; make the file and its folder writable"),
        (("BEGIN IMMEDIATE",), "is locked; another process .* wait until it has ended"),
    ],
)
def test_errors_in_the_middle_of_work_say_what_to_do_about_the_file(
    tmp_path: Path, statements: tuple[str, ...], advice: str
) -> None:
    file = tmp_path / "mlflow.db"
    change(file, "CREATE TABLE one (a)")
    store = Store(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as writer, closing(sqlite3.connect(file, timeout=0)) as database:
        if "BEGIN IMMEDIATE" in statements:
            writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryError, match=advice), store.clear_errors("take the run"):
            for statement in statements:
                database.execute(statement)

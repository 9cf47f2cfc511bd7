"""A local store that was moved or copied works in its new place, and nothing is read or written in the old one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cxr.errors import MissingInputError, RegistryError
from cxr.promotion.candidates import RunFolders
from cxr.tracking.registry_reader import missing_files
from cxr.tracking.store import Store
from support.forked_processes import ForkedProcess
from support.model_folders import make_metadata, write_models, write_store
from support.promotion_policies import EASY_POLICY
from support.registrations import register

NAME = "pneumonia-classifier"


def write_project(folder: Path) -> Path:
    """A store with one run and one version; each has a file."""
    folder.mkdir(parents=True)
    store = Store(write_store(folder))
    log_run(store, "first.txt")
    client = store.client
    (run,) = client.search_runs([store.experiment_id("pneumonia")])
    model = client.create_logged_model(run.info.experiment_id, name="three_block", source_run_id=run.info.run_id)
    files = folder / "files"
    files.mkdir()
    (files / "MLmodel").write_text("a model")
    client.log_model_artifacts(model.model_id, str(files))
    client.create_registered_model(NAME)
    client.create_model_version(NAME, model.artifact_location, run.info.run_id, model_id=model.model_id)
    return folder


def log_run(store: Store, name: str) -> None:
    """Log a run with one file of a name."""
    run = store.connect().create_run(store.experiment_id("pneumonia"))
    store.client.log_text(run.info.run_id, "text", name)


def open_project(folder: Path) -> Store:
    store = Store(f"sqlite:///{folder}/mlflow.db")
    store.connect()
    return store


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Each file with its time and its content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def dump(folder: Path) -> str:
    """All that the store's database holds."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return "\n".join(database.iterdump())


def read_version(store: Store, folder: Path) -> str:
    """The file of version 1, as MLflow's own functions find it."""
    from mlflow.artifacts import download_artifacts

    source = store.client.get_model_version_download_uri(NAME, "1")
    return Path(download_artifacts(f"{source}/MLmodel", dst_path=str(folder), tracking_uri=store.address)).read_text()


@pytest.mark.parametrize("name", ["renamed", "mit Leerzeichen ü", "50%41 off", "a#b", "what?"])
def test_a_moved_store_reads_and_writes_in_its_new_place_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    old, new = write_project(tmp_path / "at first"), tmp_path / name
    old.rename(new)
    monkeypatch.chdir(new)
    store = Store("sqlite:///mlflow.db")
    store.connect()
    monkeypatch.chdir("/")
    assert read_version(store, tmp_path / "download") == "a model"
    log_run(store, "second.txt")
    assert {path.name for path in (new / "mlruns").rglob("*.txt")} == {"first.txt", "second.txt"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "download"])
    assert str(old) not in dump(new)


def test_a_copy_neither_reads_from_its_original_nor_writes_to_it(tmp_path: Path) -> None:
    original = write_project(tmp_path / "original")
    before = listing(original)
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    next((copy / "mlruns" / "models").rglob("MLmodel")).write_text("the copy's model")
    store = open_project(copy)
    assert read_version(store, tmp_path / "download") == "the copy's model"
    log_run(store, "second.txt")
    assert list((copy / "mlruns").rglob("second.txt"))
    assert listing(original) == before
    assert str(original) not in dump(copy)
    assert read_version(open_project(original), tmp_path / "again") == "a model"


def test_a_process_that_uses_a_store_and_its_copy_adds_to_a_run_where_it_is_told(tmp_path: Path) -> None:
    original, copy = write_project(tmp_path / "original"), tmp_path / "copy"
    shutil.copytree(original, copy)
    for folder in (original, copy, original):
        store = open_project(folder)
        (run,) = store.client.search_runs([store.experiment_id("pneumonia")])
        store.client.log_text(run.info.run_id, "text", f"{folder.name}.txt")
        assert {path.name for path in folder.rglob("*.txt")} == {"first.txt", f"{folder.name}.txt"}


def test_two_places_used_in_turn_both_work(tmp_path: Path) -> None:
    """As on two machines, or inside and outside a container, that see one folder under different names."""
    first, second = write_project(tmp_path / "first"), tmp_path / "second"
    for number, (old, new) in enumerate([(first, second), (second, first), (first, second)]):
        old.rename(new)
        store = open_project(new)
        assert read_version(store, tmp_path / f"download {number}") == "a model"
        (run,) = store.client.search_runs([store.experiment_id("pneumonia")])
        store.client.log_text(run.info.run_id, "text", f"{number}.txt")
        assert not old.exists()
    assert {path.name for path in (second / "mlruns").rglob("*.txt")} == {"first.txt", "0.txt", "1.txt", "2.txt"}


def test_two_spellings_of_one_folder_are_one_place(tmp_path: Path) -> None:
    project, link = write_project(tmp_path / "project"), tmp_path / "link"
    link.symlink_to(project)
    before = (project / "mlflow.db").read_bytes()
    for number, spelling in enumerate([link, project, link]):
        assert read_version(open_project(spelling), tmp_path / f"download {number}") == "a model"
    assert (project / "mlflow.db").read_bytes() == before


def test_files_that_are_elsewhere_on_purpose_stay_there(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project")
    store = open_project(project)
    places = {
        "in a bucket": "s3://bucket/mlruns",
        "shared": str(tmp_path / "shared" / "mlruns"),
        "not mounted now": str(tmp_path / "absent" / "mlruns"),
        "other name": str(tmp_path / "project" / "my-files"),
    }
    for name, place in places.items():
        store.client.create_experiment(name, artifact_location=place)
    store.client.create_run(store.experiment_id("not mounted now"))
    run = store.client.create_run(store.experiment_id("shared"))
    store.client.log_text(run.info.run_id, "text", "shared.txt")
    project.rename(tmp_path / "moved")
    moved = open_project(tmp_path / "moved")
    experiments = {entry.name: entry.artifact_location for entry in moved.client.search_experiments()}
    assert {name: experiments[name] for name in places} == places
    assert experiments["pneumonia"] == str(tmp_path / "moved" / "mlruns")
    assert moved.client.list_artifacts(run.info.run_id)[0].path == "shared.txt"


def test_files_of_traces_move_too(tmp_path: Path) -> None:
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    project = write_project(tmp_path / "project")
    store = open_project(project)
    location = TraceLocation.from_experiment_id(store.experiment_id("pneumonia"))
    store.client._tracing_client.start_trace(TraceInfo("tr-1", location, 0, TraceState.OK))
    assert f"{project}/mlruns/traces/tr-1" in dump(project)
    project.rename(tmp_path / "moved")
    open_project(tmp_path / "moved")
    assert f"{tmp_path}/moved/mlruns/traces/tr-1" in dump(tmp_path / "moved")


def test_a_store_that_is_moved_before_it_has_files_gets_its_files_in_the_new_place(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    store = Store(write_store(project))
    run = store.client.create_run(store.experiment_id("pneumonia"))
    project.rename(tmp_path / "moved")
    moved = open_project(tmp_path / "moved")
    moved.client.log_text(run.info.run_id, "text", "first.txt")
    assert list((tmp_path / "moved").rglob("first.txt")) and not project.exists()


def test_a_copy_without_its_files_is_refused_and_told_where_they_are(tmp_path: Path) -> None:
    original, copy = write_project(tmp_path / "original"), tmp_path / "copy"
    copy.mkdir()
    shutil.copy(original / "mlflow.db", copy)
    before = (copy / "mlflow.db").read_bytes()
    with pytest.raises(MissingInputError, match=f"copy {original}/mlruns to {copy} as well, or remove"):
        open_project(copy)
    assert (copy / "mlflow.db").read_bytes() == before
    shutil.copytree(original / "mlruns", copy / "mlruns")
    assert read_version(open_project(copy), tmp_path / "download") == "a model"


def test_a_store_that_was_moved_without_its_files_is_refused_until_they_come_or_are_given_up(tmp_path: Path) -> None:
    project, moved = write_project(tmp_path / "project"), tmp_path / "moved"
    moved.mkdir()
    (project / "mlflow.db").rename(moved / "mlflow.db")
    shutil.rmtree(project)
    with pytest.raises(MissingInputError, match=f"bring the folder mlruns to {moved} as well, or create an empty one"):
        open_project(moved)
    (moved / "mlruns").mkdir()
    log_run(open_project(moved), "second.txt")
    assert list((moved / "mlruns").rglob("second.txt")) and not project.exists()


def test_all_addresses_are_changed_or_none(tmp_path: Path) -> None:
    """As when a process is killed, or the disk is full, in the middle."""
    project, moved = write_project(tmp_path / "project"), tmp_path / "moved"
    project.rename(moved)
    with closing(sqlite3.connect(moved / "mlflow.db")) as database:
        database.execute("CREATE TRIGGER full BEFORE UPDATE ON model_versions BEGIN SELECT RAISE(ABORT, 'full'); END")
    before = dump(moved)
    with pytest.raises(RegistryError, match=f"moved or copied from {project}.*: full; make the file"):
        open_project(moved)
    assert dump(moved) == before
    with closing(sqlite3.connect(moved / "mlflow.db")) as database:
        database.execute("DROP TRIGGER full")
    assert read_version(open_project(moved), tmp_path / "download") == "a model"


@pytest.mark.exhaustive  # those of test_runs that create a store at once wait for the same lock
def test_processes_that_open_a_moved_store_at_once_all_find_its_files(tmp_path: Path) -> None:
    write_project(tmp_path / "project").rename(tmp_path / "moved")
    code = (
        "import sys; from cxr.tracking.store import Store\n"
        "client = Store(sys.argv[1]).connect()\n"
        "(run,) = client.search_runs([client.get_experiment_by_name('pneumonia').experiment_id])\n"
        "print(client.list_artifacts(run.info.run_id)[0].path)"
    )
    processes = [ForkedProcess(code, f"sqlite:///{tmp_path}/moved/mlflow.db") for _ in range(3)]
    assert [process.communicate(timeout=120)[0].strip() for process in processes] == 3 * ["first.txt"]


def test_a_registration_in_a_copy_uses_the_versions_that_came_along_and_adds_only_to_the_copy(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    folders = write_models(original / "artifacts")
    run = RunFolders(folders.models, folders.evaluations, folders.splits)

    def register_models(store: Store, run: RunFolders) -> tuple[str, ...]:
        return register(store, run, experiment="pneumonia", registered_name=NAME, policy=EASY_POLICY).new_versions

    assert register_models(Store(write_store(original)), run) == ("1",)
    shutil.copytree(original, copy)
    before = listing(original)
    run = RunFolders(*(copy / path.relative_to(original) for path in (run.models, run.evaluations, run.splits)))
    store = open_project(copy)
    assert register_models(store, run) == ()
    metadata = make_metadata("three_block", seed=5)
    metadata.write(run.models / "three_block")
    metadata.with_calibration(2.5, 0.6, "rule").write(run.evaluations / "three_block")
    assert register_models(store, run) == ("2",)
    assert missing_files(store, store.client.get_model_version(NAME, "1")) == ()
    assert missing_files(store, store.client.get_model_version(NAME, "2")) == ()
    assert listing(original) == before

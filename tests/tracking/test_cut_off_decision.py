"""A registration that was killed before its decision was stored is completed by the next one.

`make test` kills before the alias moves and before the decision's files, `make test-exhaustive` at other points too.
"""

from __future__ import annotations

import json
from pathlib import Path
from threading import Timer

import pytest

from cxr.cli.main import main
from cxr.promotion.report import DECISION_FILE, IMAGES_FILE, PAGE_FILE
from cxr.steps.register import Register
from cxr.tracking import aliases
from cxr.tracking.aliases import Aliases, read_promotion_log
from cxr.tracking.store import Store
from support.forked_processes import run_forked
from support.model_folders import ModelFolders, replace_evaluation, write_models
from support.sweeps import exhaustive

NAME = "pneumonia-classifier"
KILLED_PROCESS = """
import os, signal, sys
from mlflow import MlflowClient
from cxr.cli.main import main
method, number, *arguments = sys.argv[1:]
original, calls = getattr(MlflowClient, method), [0]

def killed(*values, **options):
    calls[0] += 1
    if calls[0] == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*values, **options)

setattr(MlflowClient, method, killed)
sys.exit(main(arguments))
"""


def settings(folders: ModelFolders, uri: str, registration: Path, *included: str) -> dict[str, object]:
    """Fields of the step, with limits that every model keeps."""
    root = folders.models.parent
    return {
        "models": folders.models,
        "evaluations": folders.evaluations,
        "ensemble": root / "no-ensemble",
        "splits": folders.splits,
        "data": root / "no-data",
        "registration": registration,
        "tracking_uri": uri,
        "include": included,
        "require_gpu": False,
        "min_auroc": 0.0,
        "min_sensitivity": 0.0,
        "max_calibration_error": 1.0,
        "margin": 1.0,
        "sensitivity_margin": 1.0,
        "resamples": 100,
    }


def register(folders: ModelFolders, uri: str, registration: Path, *included: str) -> dict[str, object]:
    """Run the step and return its decision."""
    Register(**settings(folders, uri, registration, *included)).execute()
    return dict(json.loads((registration / DECISION_FILE).read_text()))


def register_and_kill(method: str, number: int, folders: ModelFolders, uri: str, *included: str) -> None:
    """Run the command in a process that is killed before the n-th call of a method of MLflow's client."""
    values = settings(folders, uri, folders.models.parent / "killed", *included)
    flags = [text for name, value in values.items() for text in (f"--{name}", as_flag(value))]
    process = run_forked(KILLED_PROCESS, method, str(number), "register", *flags)
    assert process.returncode == -9, process.stderr[-3000:]


def as_flag(value: object) -> str:
    return str(value) if isinstance(value, Path | str) else json.dumps(value)


def stored_files(store: Store, number: int) -> set[str]:
    log = Aliases(store, NAME).log
    files = store.client.list_artifacts(log.run_id, f"decisions/{number:04d}")
    return {Path(file.path).name for file in files}


def register_a_weak_model(uri: str, tmp_path: Path) -> ModelFolders:
    """Make ``shallow`` the champion, and write ``three_block``, which is better and not registered yet."""
    folders = write_models(tmp_path, ["three_block", "shallow"])
    replace_evaluation(folders, "shallow", 1.0)
    register(folders, uri, tmp_path / "registration", "shallow")
    replace_evaluation(folders, "three_block", 5.0)
    return folders


@pytest.mark.parametrize(
    ("method", "number"),
    [
        ("set_registered_model_alias", 2),  # the first call of all asks for the permission
        ("log_artifacts", 4),  # the decision's files, after the training, the evaluation and the record
        *exhaustive(
            ("set_registered_model_alias", 3),
            ("log_param", 2),  # the entry itself is the first one; this one says that the aliases have followed
            ("set_model_version_tag", 1),
        ),
    ],
)
def test_the_next_registration_stores_the_decision_of_one_that_was_killed(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    monkeypatch.setattr(aliases, "PATIENCE", 0.0)
    folders, store = register_a_weak_model(uri, tmp_path), Store(uri)
    register_and_kill(method, number, folders, uri, "three_block")
    (_, cut_off) = read_promotion_log(store, NAME)
    assert (cut_off.candidate, cut_off.champion) == ("2", "2")
    assert "decision" not in store.client.get_model_version(NAME, "2").tags

    decision = register(folders, uri, tmp_path / "registration", "three_block")
    assert decision["entry"] == 2 and decision["new"] == []
    assert decision["decision"]["promote"] is True
    assert {DECISION_FILE, PAGE_FILE, IMAGES_FILE} <= stored_files(store, 2)
    address = Aliases(store, NAME).log.decision_address(2)
    assert store.client.get_model_version(NAME, "2").tags["decision"] == address
    assert set(Aliases(store, NAME).current().values()) == {"2"}

    again = register(folders, uri, tmp_path / "registration", "three_block")
    assert again["entry"] is None and len(read_promotion_log(store, NAME)) == 2


@pytest.mark.exhaustive  # the first test kills registrations that promote
def test_a_refused_challenger_gets_its_decision_from_the_next_registration(uri: str, tmp_path: Path) -> None:
    folders, store = write_models(tmp_path, ["three_block", "shallow"]), Store(uri)
    replace_evaluation(folders, "shallow", 5.0)
    register(folders, uri, tmp_path / "registration", "shallow")
    replace_evaluation(folders, "three_block", 1.0)
    register_and_kill("set_model_version_tag", 1, folders, uri, "three_block")
    decision = register(folders, uri, tmp_path / "registration", "three_block")
    assert (decision["entry"], decision["decision"]["promote"]) == (2, False)
    (_, entry) = read_promotion_log(store, NAME)
    assert entry.reasons and "decision" in store.client.get_model_version(NAME, "2").tags


@pytest.mark.parametrize("next_run", ["another policy", *exhaustive("other models", "a rollback between")])
def test_a_decision_that_the_next_registration_does_not_repeat_is_marked_in_the_log(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(aliases, "PATIENCE", 0.0)
    folders, store = register_a_weak_model(uri, tmp_path), Store(uri)
    register_and_kill("log_artifacts", 4, folders, uri, "three_block")
    if next_run == "another policy":
        values = settings(folders, uri, tmp_path / "registration", "three_block")
        Register(**(values | {"min_gain": 0.5})).execute()
    elif next_run == "other models":
        replace_evaluation(folders, "shallow", 4.0)
        register(folders, uri, tmp_path / "registration", "shallow")
    else:
        Aliases(store, NAME).roll_back("too many alarms")
        register(folders, uri, tmp_path / "registration", "three_block")
    first, cut_off, *later = read_promotion_log(store, NAME)
    assert (cut_off.candidate, cut_off.cut_off) == ("2", True)
    assert not any(entry.cut_off for entry in (first, *later))
    address = Aliases(store, NAME).log.decision_address(cut_off.number)
    assert store.client.get_model_version(NAME, "2").tags.get("decision") != address
    assert main(["history", "--tracking_uri", uri]) == 0
    assert capsys.readouterr().out.count("the run was cut off before it stored the files of this decision") == 1


def test_a_decision_that_its_process_still_stores_is_not_marked(uri: str, tmp_path: Path) -> None:
    folders, store = write_models(tmp_path), Store(uri)
    register(folders, uri, tmp_path / "registration")
    registry_aliases = Aliases(store, NAME)
    address = store.client.get_model_version(NAME, "1").tags["decision"]
    store.client.delete_model_version_tag(NAME, "1", "decision")
    entry = registry_aliases.decision_without_files()
    assert entry is not None and entry.number == 1
    storing = Timer(1.0, store.client.set_model_version_tag, [NAME, "1", "decision", address])
    storing.start()
    registry_aliases.mark_cut_off(entry)
    storing.join()
    assert not any(entry.cut_off for entry in read_promotion_log(store, NAME))


def test_versions_that_a_killed_registration_has_left_are_decided_about(uri: str, tmp_path: Path) -> None:
    folders, store = write_models(tmp_path, ["three_block", "shallow"]), Store(uri)
    register_and_kill("log_param", 1, folders, uri)
    assert len(store.client.search_model_versions(f"name = '{NAME}'")) == 2
    assert set(Aliases(store, NAME).current().values()) == {None}
    decision = register(folders, uri, tmp_path / "registration")
    assert (decision["new"], decision["entry"]) == ([], 1)
    (champion,) = set(Aliases(store, NAME).current().values())
    assert champion is not None and champion == decision["decision"]["champion"]
    assert "decision" in store.client.get_model_version(NAME, champion).tags


def test_what_a_killed_process_left_half_done_in_the_log_is_completed(uri: str, tmp_path: Path) -> None:
    folders, store = write_models(tmp_path), Store(uri)
    register(folders, uri, tmp_path / "registration")
    log = Aliases(store, NAME).log
    expected = log.load_predictions("1")
    store.client.update_run(log.run_id, status="RUNNING")  # killed just after the log's run was created
    (table,) = (tmp_path / "mlruns").rglob("versions/1/judged.parquet")
    table.write_bytes(table.read_bytes()[:300])  # killed while the file was copied
    assert log.load_predictions("1") is None
    register(folders, uri, tmp_path / "registration")
    assert store.client.get_run(log.run_id).info.status == "FINISHED"
    assert expected is not None and expected.equals(log.load_predictions("1"))

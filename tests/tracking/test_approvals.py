"""A version that keeps the rules waits for a second person, who makes it champion."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cxr.cli.main import main
from cxr.errors import ParameterError, RegistryError
from cxr.promotion.candidates import RunFolders
from cxr.promotion.policy import PromotionPolicy
from cxr.promotion.report import Registration, write_decision
from cxr.steps.outcome import Outcome
from cxr.tracking import aliases as aliases_module
from cxr.tracking.aliases import Aliases, read_promotion_log
from cxr.tracking.approvals import Approvals, waiting_versions
from cxr.tracking.registry import register, store_decision
from cxr.tracking.relocation import correct_addresses
from cxr.tracking.store import Store
from cxr.tracking.users import current_user
from support.model_folders import ModelFolders, replace_evaluation, write_models, write_store
from support.promotion_policies import EASY_POLICY
from support.sweeps import exhaustive

NAME = "pneumonia-classifier"
WITH_APPROVAL = replace(EASY_POLICY, require_approval=True)


@dataclass(frozen=True)
class Registry:
    """A store, and the folders of two models: ``shallow`` is champion, ``three_block`` is better."""

    root: Path
    folders: ModelFolders

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root}/mlflow.db"

    @property
    def store(self) -> Store:
        return Store(self.uri)

    @property
    def approvals(self) -> Approvals:
        return Approvals(self.store, NAME, None)

    @property
    def aliases(self) -> dict[str, str]:
        registered = self.store.client.get_registered_model(NAME)
        return {alias: str(version) for alias, version in registered.aliases.items()}

    def tags(self, version: str) -> dict[str, str]:
        return dict(self.store.client.get_model_version(NAME, version).tags)

    def set_tag(self, version: str, tag: str, value: str) -> None:
        self.store.client.set_model_version_tag(NAME, version, tag, value)

    def register(self, *names: str, policy: PromotionPolicy = WITH_APPROVAL) -> Registration:
        run = RunFolders(self.folders.models, self.folders.evaluations, self.folders.splits, include=names)
        result = register(self.store, run, experiment="pneumonia", registered_name=NAME, policy=policy)
        decision = self.root / "decision"
        decision.mkdir(exist_ok=True)
        write_decision(decision, result)
        store_decision(self.store, result, decision)
        return result


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Version 1 is champion, version 2 waits for approval; tests change copies of it."""
    root = tmp_path_factory.mktemp("approvals")
    folders = write_models(root, ["three_block", "shallow", "deep"])
    replace_evaluation(folders, "shallow", 1.0)
    replace_evaluation(folders, "three_block", 2.0)
    replace_evaluation(folders, "deep", 5.0)
    write_store(root)
    registry = Registry(root, folders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOGNAME", "ada")
        registry.register("shallow", policy=EASY_POLICY)
        registry.register("three_block")
    return registry


@pytest.fixture
def registry(waiting: Registry, tmp_path: Path) -> Registry:
    """A copy of the store that a test may change."""
    shutil.copyfile(waiting.root / "mlflow.db", tmp_path / "mlflow.db")
    shutil.copytree(waiting.root / "mlruns", tmp_path / "mlruns")
    correct_addresses(tmp_path / "mlflow.db")
    return Registry(tmp_path, waiting.folders)


def cxr(registry: Registry, *arguments: str) -> int:
    return main([*arguments, "--tracking_uri", registry.uri])


def test_a_version_that_keeps_the_rules_waits(waiting: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert waiting.aliases == {"champion": "1", "challenger": "2", "candidate": "2"}
    entry = read_promotion_log(waiting.store, NAME)[-1]
    assert (entry.kind, entry.trained_by, entry.approved_by) == ("run", ("ada",), "")
    assert cxr(waiting, "approve", "--list", "true") == 0
    line = capsys.readouterr().out
    assert "Version 2 waits since " in line and "another user than ada, who trained it" in line
    assert cxr(waiting, "history") == 0
    history = capsys.readouterr().out
    assert "version 1 stayed champion; version 2 waits for approval" in history and "trained by ada" in history
    assert "waits" in (waiting.root / "decision" / "decision.html").read_text()
    assert [(name, start.waiting) for name, start in waiting_versions(waiting.store)] == [(NAME, "2")]


def test_the_last_task_of_a_pipeline_run_says_what_waits(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    client = registry.store.client
    client.create_registered_model("of another program")
    client.create_model_version("of another program", str(registry.root))
    client.set_registered_model_alias("of another program", "candidate", "1")
    with caplog.at_level("INFO", logger="cxr"):
        Outcome.build({"tracking_uri": registry.uri, "run_id": "weekly"}).execute()
    assert f"{NAME}: Version 2 waits since " in caplog.text
    (run,) = client.search_runs([client.get_experiment_by_name("pneumonia: pipeline runs").experiment_id])
    assert "Version 2 waits since " in run.data.tags["mlflow.note.content"]
    assert client.get_experiment_by_name("of another program: promotions") is None


def test_the_same_run_again_adds_nothing_and_says_what_waits(registry: Registry) -> None:
    result = registry.register("three_block")
    assert result.entry is None and result.headline().endswith("version 2 waits for approval")
    assert result.notes[0].startswith("Version 2 waits since ")


def test_an_approval_of_another_user_makes_it_champion_and_is_recorded_everywhere(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGNAME", "ben")
    assert cxr(registry, "approve", "2", "--reason", "seen beside 50 films of May") == 0
    assert registry.aliases == {"champion": "2", "challenger": "2"}
    entry = read_promotion_log(registry.store, NAME)[-1]
    assert (entry.kind, entry.trained_by, entry.approved_by) == ("approval", ("ada",), "ben")
    capsys.readouterr()
    assert cxr(registry, "history") == 0
    history = capsys.readouterr().out
    assert "version 2 became champion instead of version 1 (approved by ben, trained by ada)" in history
    assert "seen beside 50 films of May" in history
    assert cxr(registry, "lineage", "2") == 0
    assert "approved by ben, trained by ada: seen beside 50 films of May" in capsys.readouterr().out
    log = Aliases(registry.store, NAME).log
    assert registry.tags("2")["decision"] == log.decision_address(entry.number)
    decision = log.read_decision_file(entry.number, "decision.json")
    assert decision["decision"]["rules"][-1]["figure"] == "ben" and decision["decision"]["promote"] is True
    assert registry.register("three_block").entry is None
    # The same command again changes nothing, and a rollback goes back as after any promotion.
    assert cxr(registry, "approve", "2", "--reason", "once more") == 0
    assert Aliases(registry.store, NAME).roll_back("too many alarms").champion == "1"


def test_an_approval_by_the_trainer_is_refused(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGNAME", "Ada")
    before = len(read_promotion_log(registry.store, NAME))
    assert cxr(registry, "approve", "2", "--reason", "fine") == 2
    assert "another user than ada, who trained version 2, received user='Ada'" in capsys.readouterr().err
    assert registry.aliases["champion"] == "1" and len(read_promotion_log(registry.store, NAME)) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1", "--reason", "x"), "received version=1; there is version 2, which waits since"),
        (("9", "--reason", "x"), "received version='9'; there are versions 1, 2"),
        (("2",), "expected a reason for the promotion log"),
        (("2", "--reason", "  "), "expected a reason for the promotion log"),
        (("--reason", "x"), "expected a version, received version=null"),
        (("2", "--list", "true"), "expected list=true alone"),
    ],
)
def test_a_wrong_approval_is_refused(
    waiting: Registry, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert cxr(waiting, "approve", *arguments) == 2
    assert message in capsys.readouterr().err
    assert waiting.aliases["candidate"] == "2"


def test_the_next_run_carries_out_an_approval_in_mlflows_page(registry: Registry) -> None:
    registry.set_tag("2", "approved_by", "ben")
    registry.set_tag("2", "approval_reason", "agreed on Monday")
    result = registry.register("three_block")
    assert registry.aliases["champion"] == "2"
    assert "approved by ben, trained by ada" in result.notes[0]
    tags = registry.tags("2")
    assert "agreed on Monday" in tags["approval"] and not {"approved_by", "approval_reason"} & set(tags)


def test_an_approval_in_mlflows_page_under_the_trainers_name_is_refused_and_the_run_goes_on(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.set_tag("2", "approved_by", " ADA ")
    result = registry.register("three_block")
    assert "who trained version 2, received user='ADA'" in result.notes[0]
    assert registry.aliases["champion"] == "1" and registry.aliases["candidate"] == "2"
    assert cxr(registry, "approve") == 2
    assert "ask a colleague" in capsys.readouterr().err


def test_a_better_version_takes_the_place_of_the_one_that_waits(registry: Registry) -> None:
    registry.set_tag("2", "approved_by", "")
    registry.register("deep")
    assert registry.aliases == {"champion": "1", "challenger": "3", "candidate": "3"}
    entry = read_promotion_log(registry.store, NAME)[-1]
    assert "version 3 waits for approval instead of version 2" in entry.sentence()
    with pytest.raises(ParameterError, match="received version=2; there is version 3, which waits"):
        registry.approvals.approve("2", "ben", "x")
    result = registry.register("three_block")  # worse than version 3, although better than the champion
    assert registry.aliases["candidate"] == "3" and result.decision is not None
    assert [rule.name for rule in result.decision.rules if not rule.passed] == ["better_than_candidate"]


def test_an_approval_does_not_overrule_a_champion_that_was_chosen_or_pinned_meanwhile(registry: Registry) -> None:
    registry.set_tag("1", "pinned", "yes")
    with pytest.raises(RegistryError, match="version 1 is pinned as champion"):
        registry.approvals.approve("2", "ben", "x")
    registry.store.client.delete_model_version_tag(NAME, "1", "pinned")
    registry.store.client.delete_registered_model_alias(NAME, "champion")
    registry.register("shallow", policy=EASY_POLICY)
    registry.store.client.set_registered_model_alias(NAME, "champion", "2")
    with pytest.raises(ParameterError, match="received version=2; there is none"):
        registry.approvals.approve("2", "ben", "x")


def test_a_deleted_version_and_a_removed_alias_wait_no_longer(registry: Registry) -> None:
    registry.store.client.delete_registered_model_alias(NAME, "candidate")
    assert registry.approvals.waiting() is None
    assert "version 2 waits no longer (by hand)" in read_promotion_log(registry.store, NAME)[-1].sentence()
    registry.register("three_block")  # the rules let it wait again
    assert registry.aliases["candidate"] == "2"
    registry.store.client.delete_model_version(NAME, "2")
    assert registry.approvals.waiting() is None and cxr(registry, "approve", "2", "--reason", "x") == 2


def test_without_the_parameter_nothing_waits_any_more(registry: Registry) -> None:
    registry.register("three_block", policy=EASY_POLICY)
    assert registry.aliases == {"champion": "2", "challenger": "2"}


@pytest.mark.parametrize(
    ("method", "next_command"),
    [
        ("set_registered_model_alias", "approve"),
        *exhaustive(("log_param", "register"), ("log_artifacts", "approve"), ("set_model_version_tag", "register")),
    ],
)
def test_an_approval_that_was_killed_is_completed(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, method: str, next_command: str
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(aliases_module, "PATIENCE", 0.0)
    process = os.fork()
    if process == 0:
        calls: list[str] = []
        original = getattr(MlflowClient, method)

        def killed(*values: object, **options: object) -> object:
            calls.append(method)
            if len(calls) == (2 if method == "log_param" else 1):  # the entry itself is the first parameter
                os._exit(9)
            return original(*values, **options)

        setattr(MlflowClient, method, killed)
        registry.approvals.approve("2", "ben", "agreed")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    if next_command == "approve":
        registry.approvals.approve("2", "ben", "agreed")
    else:
        registry.register("three_block")
    entry = read_promotion_log(registry.store, NAME)[-1]
    assert (entry.kind, entry.number, entry.applied, entry.cut_off) == ("approval", 3, True, False)
    assert registry.aliases == {"champion": "2", "challenger": "2"}
    assert registry.tags("2")["decision"] == Aliases(registry.store, NAME).log.decision_address(3)
    assert "approved by ben" in registry.tags("2")["approval"]


def test_the_login_of_a_server_is_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "account")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "login")
    assert current_user(Store("http://127.0.0.1:1")) == "login"
    assert current_user(Store("sqlite:///mlflow.db")) == "account"

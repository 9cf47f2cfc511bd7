"""Aliases and promotion log agree, whatever persons, killed processes and competing runs do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from cxr.errors import RegistryError
from cxr.promotion.log import CANDIDATE, CHALLENGER, CHAMPION, PromotionEntry
from cxr.tracking import aliases as aliases_module
from cxr.tracking.aliases import Aliases, read_promotion_log
from cxr.tracking.promotion_log import PromotionLog
from cxr.tracking.store import Store
from support.forked_processes import ForkedProcess

NAME = "pneumonia-classifier"


@pytest.fixture
def client(store: Store) -> MlflowClient:
    """A registered model with four versions without files."""
    store.client.create_registered_model(NAME)
    for _ in range(4):
        store.client.create_model_version(NAME, source="file:///nowhere")
    return store.client


def alias_versions(store: Store) -> Mapping[str, str | None]:
    return Aliases(store, NAME).current()


def promote(store: Store, version: str) -> PromotionEntry | None:
    aliases = Aliases(store, NAME)
    return aliases.move(aliases.synchronize(), "run", {CHAMPION: version, CHALLENGER: version}, candidate=version)


REMOVALS = ("delete_registered_model_alias", "delete_model_version_tag")
"""What MLflow's server refuses to a login with EDIT on the registered model alone."""
CHANGES_OF_THE_MODEL = (*REMOVALS, "set_registered_model_alias", "set_model_version_tag")
CHANGES_OF_THE_LOG = ("log_param",)


def refuse(monkeypatch: pytest.MonkeyPatch, requests: Sequence[str]) -> None:
    """Let the store answer as MLflow's server does to a login without the permission for some requests."""

    def deny(*arguments: object, **values: object) -> None:
        raise MlflowException("Permission denied", PERMISSION_DENIED)

    for name in requests:
        monkeypatch.setattr(MlflowClient, name, deny)


def test_an_entry_of_the_log_can_be_written_once(store: Store, client: MlflowClient) -> None:
    log = PromotionLog(store, NAME)
    entry = PromotionEntry(1, datetime(2026, 11, 1, tzinfo=UTC), "run", "one", {}, {CHAMPION: "1"})
    assert log.append(entry) and log.append(entry), "the same entry again, after an answer was lost, is in the log"
    assert not log.append(replace(entry, who="another"))
    assert [entry.who for entry in log.entries()] == ["one"]
    assert PromotionLog(store, NAME).run_id == log.run_id


def test_a_deleted_log_is_not_begun_anew(store: Store, client: MlflowClient) -> None:
    promote(store, "1")
    client.delete_run(PromotionLog(store, NAME).run_id)
    with pytest.raises(RegistryError, match=r"expected the promotion log, received run=\w+ \(deleted\); restore it"):
        promote(store, "2")
    assert {str(version) for version in client.get_registered_model(NAME).aliases.values()} == {"1"}


def test_an_unknown_registered_model_is_named(store: Store) -> None:
    with pytest.raises(RegistryError, match=r"registered_name='other' .*run `cxr register` first"):
        Aliases(store, "other")


def test_only_one_of_two_decisions_on_the_same_state_is_written(store: Store, client: MlflowClient) -> None:
    first, second = Aliases(store, NAME), Aliases(store, NAME)
    first_state, second_state = first.synchronize(), second.synchronize()
    assert second.move(second_state, "run", {CHAMPION: "2"}) is not None
    assert first.move(first_state, "run", {CHAMPION: "1"}) is None
    assert alias_versions(store)[CHAMPION] == "2"
    assert len(first.log.entries()) == 1


def test_an_alias_that_a_person_sets_is_recorded_and_counts_as_manual(store: Store, client: MlflowClient) -> None:
    promote(store, "1")
    client.set_registered_model_alias(NAME, CHAMPION, "3")
    state = Aliases(store, NAME).synchronize()
    assert (state.champion, state.manual_aliases) == ("3", (CHAMPION,))
    last = read_promotion_log(store, NAME)[-1]
    assert (last.kind, last.who, last.sentence()) == (
        "person",
        "a person",
        "version 3 became champion instead of version 1 (set by hand)",
    )
    assert len(read_promotion_log(store, NAME)) == 2, "looking again adds nothing"


def test_runs_decide_again_after_a_person_removes_the_alias(store: Store, client: MlflowClient) -> None:
    promote(store, "1")
    client.set_registered_model_alias(NAME, CHAMPION, "3")
    Aliases(store, NAME).synchronize()
    client.delete_registered_model_alias(NAME, CHAMPION)
    state = Aliases(store, NAME).synchronize()
    assert (state.champion, state.manual_aliases) == (None, ())


def test_an_alias_older_than_the_log_counts_as_manual(store: Store, client: MlflowClient) -> None:
    client.set_registered_model_alias(NAME, CHAMPION, "2")
    assert Aliases(store, NAME).synchronize().manual_aliases == (CHAMPION,)


def test_release_lets_runs_decide_again(store: Store, client: MlflowClient) -> None:
    promote(store, "1")
    assert Aliases(store, NAME).release() is None
    client.set_registered_model_alias(NAME, CHAMPION, "3")
    entry = Aliases(store, NAME).release()
    assert entry is not None and entry.sentence() == "version 3 stayed champion; runs decide again"
    assert Aliases(store, NAME).synchronize().manual_aliases == () and alias_versions(store)[CHAMPION] == "3"


def test_a_move_whose_process_was_killed_is_completed(
    store: Store, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, "1")
    aliases = Aliases(store, NAME)
    unfinished = PromotionEntry(
        2, datetime.now(UTC), "run", "a killed run", aliases.current(), {CHAMPION: "2", CHALLENGER: "2"}
    )
    assert aliases.log.append(unfinished)
    monkeypatch.setattr(aliases_module, "PATIENCE", 0.1)
    assert Aliases(store, NAME).synchronize().champion == "2"
    assert alias_versions(store) == {CHAMPION: "2", CHALLENGER: "2"}
    assert [entry.applied for entry in read_promotion_log(store, NAME)] == [True, True]


def test_a_person_who_chooses_while_a_move_is_half_done_wins(store: Store, client: MlflowClient) -> None:
    promote(store, "1")
    aliases = Aliases(store, NAME)
    unfinished = PromotionEntry(
        2, datetime.now(UTC), "run", "a killed run", aliases.current(), {CHAMPION: "2", CHALLENGER: "2"}
    )
    assert aliases.log.append(unfinished)
    client.set_registered_model_alias(NAME, CHAMPION, "4")
    client.set_registered_model_alias(NAME, CHALLENGER, "2")
    state = Aliases(store, NAME).synchronize()
    assert (state.champion, state.manual_aliases) == ("4", (CHAMPION,))


def test_a_rollback_needs_an_earlier_champion_that_can_answer(store: Store, client: MlflowClient) -> None:
    promote(store, "1")
    with pytest.raises(RegistryError, match=r"received champion=1, before which the promotion log has no other"):
        Aliases(store, NAME).roll_back("")
    promote(store, "2")
    with pytest.raises(RegistryError, match=r"version 1 .* with all its files, received one without card\.json"):
        Aliases(store, NAME).roll_back("")
    client.delete_model_version(NAME, "1")
    with pytest.raises(RegistryError, match="received none; it was deleted"):
        Aliases(store, NAME).roll_back("")
    assert alias_versions(store)[CHAMPION] == "2" and len(read_promotion_log(store, NAME)) == 2


COMPETITOR = """
import sys, json
from cxr.promotion.log import CHAMPION
from cxr.tracking.aliases import Aliases, read_promotion_log
from cxr.tracking.store import Store
aliases = Aliases(Store(sys.argv[1]), "pneumonia-classifier")
sys.stdin.readline()
written = 0
for turn in range(8):
    while True:
        state = aliases.synchronize()
        entry = aliases.move(state, "run", {CHAMPION: sys.argv[2 + turn % 2]}, candidate=sys.argv[2 + turn % 2])
        if entry is not None:
            break
    written += 1
print(written)
"""


def test_processes_that_decide_at_once_leave_a_log_without_gaps_or_contradictions(
    store: Store, client: MlflowClient, tmp_path: Path
) -> None:
    processes = [ForkedProcess(COMPETITOR, store.uri, first, second) for first, second in (("1", "2"), ("3", "4"))]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        assert json.loads(out) == 8
    entries = read_promotion_log(store, NAME)
    assert [entry.number for entry in entries] == list(range(1, 17))
    for previous, entry in itertools.pairwise(entries):
        assert entry.before[CHAMPION] == previous.champion
        assert entry.kind == "run"
    assert alias_versions(store)[CHAMPION] == entries[-1].champion


def test_a_login_that_may_set_aliases_and_not_remove_them_completes_no_move_that_removes_one(
    store: Store, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1", "2"):
        promote(store, version)
    client.set_registered_model_alias(NAME, CANDIDATE, "3")
    aliases = Aliases(store, NAME)
    state = aliases.synchronize()
    with monkeypatch.context() as server:
        refuse(server, REMOVALS)
        with pytest.raises(RegistryError, match="ask an administrator for MANAGE on the registered model"):
            aliases.move(state, "approval", {CHAMPION: "3", CANDIDATE: None})
        assert len(aliases.log.entries()) == state.last_entry.number, "the log says nothing that did not happen"
        unfinished = PromotionEntry(
            state.last_entry.number + 1, datetime.now(UTC), "approval", "a killed process", state.versions,
            {**state.versions, CHAMPION: "3", CANDIDATE: None},
        )  # fmt: skip
        assert aliases.log.append(unfinished)
        server.setattr(aliases_module, "PATIENCE", 0.1)
        with pytest.raises(RegistryError, match="ask an administrator for MANAGE on the registered model"):
            aliases.roll_back("")
        assert not aliases.log.entries()[-1].applied
    monkeypatch.setattr(aliases_module, "PATIENCE", 0.1)
    assert Aliases(store, NAME).synchronize().champion == "3", "a login with the permission completes it"
    assert CANDIDATE not in alias_versions(store)


def test_the_error_names_the_permissions_that_the_action_needs(
    store: Store, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(requests: Sequence[str], act: Callable[[], object]) -> str:
        with monkeypatch.context() as server, pytest.raises(RegistryError) as caught:
            refuse(server, requests)
            act()
        return str(caught.value)

    for version in ("1", "2"):
        promote(store, version)
    aliases = Aliases(store, NAME)
    on_log = f"EDIT on the experiment '{NAME}: promotions'"
    state = aliases.synchronize()
    for requests in (CHANGES_OF_THE_MODEL, CHANGES_OF_THE_LOG):
        text = message(requests, lambda: aliases.move(state, "rollback", {CHAMPION: "1"}, manual_aliases=[CHAMPION]))
        assert f"for EDIT on the registered model and {on_log} (mlflow/README.md)" in text
    client.set_registered_model_alias(NAME, CANDIDATE, "3")
    text = message(CHANGES_OF_THE_LOG, aliases.synchronize)
    assert f"may write the promotion log of {NAME}" in text and f"for {on_log} (" in text
    with_candidate = aliases.synchronize()
    approval = {CHAMPION: "3", CANDIDATE: None}
    text = message(CHANGES_OF_THE_MODEL, lambda: aliases.move(with_candidate, "approval", approval))
    assert f"for MANAGE on the registered model and {on_log} (mlflow/README.md)" in text
    assert aliases.move(with_candidate, "rollback", {CHAMPION: "1"}, manual_aliases=[CHAMPION])
    text = message(CHANGES_OF_THE_LOG, aliases.release)
    assert "EDIT on the registered model" not in text and f"for {on_log} (" in text

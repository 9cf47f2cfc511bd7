"""Where signatures are required, no unsigned version becomes champion: neither by a run nor by an approval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cxr.cli.main import main
from cxr.promotion.candidates import RunFolders
from cxr.promotion.policy import PromotionPolicy
from cxr.promotion.report import Registration, write_decision
from cxr.tracking.aliases import read_promotion_log
from cxr.tracking.registry import register, store_decision
from cxr.tracking.store import Store
from support.model_folders import ModelFolders, replace_evaluation, write_models, write_store
from support.promotion_policies import EASY_POLICY
from support.signing_keys import KeyPair, write_keys

NAME = "pneumonia-classifier"
WITH_APPROVAL = replace(EASY_POLICY, require_approval=True)


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    return write_keys(tmp_path, "release")


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    replace_evaluation(folders, "three_block", 1.0)
    replace_evaluation(folders, "shallow", 5.0)
    return folders


def decide(store: Store, folders: ModelFolders, name: str, policy: PromotionPolicy, folder: Path) -> Registration:
    """Register a model and keep the decision, as `cxr register` does."""
    run = RunFolders(folders.models, folders.evaluations, folders.splits, include=[name])
    result = register(store, run, experiment="pneumonia", registered_name=NAME, policy=policy)
    folder.mkdir(exist_ok=True)
    write_decision(folder, result)
    store_decision(store, result, folder)
    return result


def aliases(uri: str) -> dict[str, str]:
    return {alias: str(number) for alias, number in Store(uri).client.get_registered_model(NAME).aliases.items()}


@pytest.mark.parametrize("command", ["serve", "register", "approve", "judge"])
def test_required_signatures_in_a_section_that_other_commands_do_not_read_are_an_error(
    command: str, key: KeyPair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(f"serve:\n  require_signature: {key.public}\n")
    assert main([command, "--params", str(params)]) == 2
    assert (
        "expected require_signature in the section register or register_regions, so that every command obeys it, "
        f"received serve.require_signature='{key.public}'; move it there" in capsys.readouterr().err
    )


def test_an_unsigned_version_is_not_approved_until_somebody_has_signed_it(
    key: KeyPair, folders: ModelFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    uri = write_store(tmp_path)
    monkeypatch.setenv("LOGNAME", "ada")
    decide(Store(uri), folders, "shallow", WITH_APPROVAL, tmp_path / "decision")
    assert aliases(uri) == {"challenger": "1", "candidate": "1"}
    monkeypatch.setenv("LOGNAME", "ben")
    words = ("1", "--reason", "seen", "--require_signature", str(key.public), "--tracking_uri", uri)
    assert main(["approve", *words]) == 1
    message = capsys.readouterr().err
    assert "received an unsigned version" in message and "`cxr sign VERSION --signing_key FILE`" in message
    assert aliases(uri) == {"challenger": "1", "candidate": "1"} and len(read_promotion_log(Store(uri), NAME)) == 1
    assert main(["sign", "1", "--signing_key", str(key.private), "--tracking_uri", uri]) == 0
    assert main(["approve", *words]) == 0
    assert aliases(uri) == {"champion": "1", "challenger": "1"}


def test_a_signed_version_replaces_an_unsigned_champion_and_an_unsigned_one_does_not(
    key: KeyPair, folders: ModelFolders, tmp_path: Path
) -> None:
    uri = write_store(tmp_path)
    assert decide(Store(uri), folders, "three_block", EASY_POLICY, tmp_path / "decision").decision.promote
    trusting = Store(uri, trusted_keys=key.trusted)
    refused = decide(trusting, folders, "shallow", EASY_POLICY, tmp_path / "decision")
    assert aliases(uri) == {"champion": "1", "challenger": "2"}
    (reason,) = refused.decision.reasons
    assert reason.startswith("its signature is refused: expected version 2") and "cxr sign" in reason
    assert "its signature is refused" in (tmp_path / "decision" / "decision.html").read_text()

    assert main(["sign", "2", "--signing_key", str(key.private), "--tracking_uri", uri]) == 0
    assert decide(trusting, folders, "shallow", EASY_POLICY, tmp_path / "decision").decision.promote
    assert aliases(uri) == {"champion": "2", "challenger": "2"}

"""A registration that is killed before any of its calls to the store is completed by the next one, and only once.

test_cut_off_decision and test_cut_off_registration, in `make test`, kill before the calls that matter most.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.forked_processes import run_forked
from support.killed_registrations import KILLED
from support.loopback import MlflowServer
from support.model_folders import ModelFolders, replace_evaluation, write_models, write_store

pytestmark = pytest.mark.exhaustive

REGISTRATIONS = """
import json, sys
from pathlib import Path
from support.killed_registrations import main
main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
"""


def settings(folders: ModelFolders, uri: str, *included: str) -> dict[str, Any]:
    """Fields of the step, with limits that every model keeps."""
    work = folders.models.parent
    paths = {
        "models": folders.models,
        "evaluations": folders.evaluations,
        "splits": folders.splits,
        "ensemble": work / "no-ensemble",
        "data": work / "no-data",
        "registration": work / "registration",
    }
    limits = {"min_auroc": 0.0, "min_sensitivity": 0.0, "max_calibration_error": 1.0, "margin": 1.0,
              "sensitivity_margin": 1.0, "require_gpu": False, "resamples": 100}  # fmt: skip
    return {name: str(path) for name, path in paths.items()} | limits | {"tracking_uri": uri, "include": included}


def killed_registrations(work: Path, every: int, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The whole registration, and one for each point at which it was killed, as they left the store."""
    process = run_forked(REGISTRATIONS, str(work), str(every), json.dumps(values), timeout=1500)
    assert process.returncode == 0, process.stderr[-3000:]
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


def differences(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """For each kill after which the store is not as after a whole registration: what it holds instead."""
    expected, *killed = rounds
    return {
        f"{number}: {outcome['before']}": outcome["statuses"]
        if outcome["content"] is None
        else {key: value for key, value in outcome["content"].items() if value != expected["content"][key]}
        for number, outcome in enumerate(killed)
        if (outcome["statuses"], outcome["content"]) != ([KILLED, 0], expected["content"])
    }


def test_a_promotion_killed_before_any_writing_call_is_completed_by_the_next_registration(tmp_path: Path) -> None:
    from cxr.steps.register import Register

    work = tmp_path / "work"
    work.mkdir()
    folders, uri = write_models(work, ["three_block", "shallow"]), write_store(work)
    replace_evaluation(folders, "shallow", 1.0)
    Register(**settings(folders, uri, "shallow")).execute()
    replace_evaluation(folders, "three_block", 5.0)
    rounds = killed_registrations(work, 1, settings(folders, uri, "three_block"))
    whole = rounds[0]["content"]
    assert whole["aliases"] == {"champion": "2", "challenger": "2"}
    assert [entry[:4] for entry in whole["entries"]] == [[1, "run", "1", "1"], [2, "run", "2", "2"]]
    assert whole["versions"][1][2] == "0002" and whole["models"] == ["READY"]
    assert {run[1] for run in whole["runs"]} == {"FINISHED"}
    (log,) = [run for run in whole["runs"] if run[0] == "promotion log"]
    stored = {f"decisions/0002/{name}" for name in ("decision.json", "decision.html", "comparison.parquet")}
    assert stored <= set(log[5])
    calls = len(rounds[0]["calls"])
    assert calls > 15 and len(rounds) == 1 + calls
    assert differences(rounds) == {}


def test_a_first_registration_killed_on_a_server_is_completed_by_the_next_one(
    server: MlflowServer, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    rounds = killed_registrations(work, 5, settings(write_models(work), server.uri))
    assert rounds[0]["content"]["aliases"] == {"champion": "1", "challenger": "1"}
    assert len(rounds) > 4
    assert differences(rounds) == {}

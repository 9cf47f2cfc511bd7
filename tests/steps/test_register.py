from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from cxr.errors import MissingInputError, ParameterError
from cxr.steps.register import Register
from support.model_folders import GPU, make_metadata, replace_evaluation, write_models, write_store


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of a run in the checkout are no input of a test."""
    monkeypatch.chdir(tmp_path)


def test_the_step_writes_the_decision_and_logs_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    step = Register.build(
        {
            "models": folders.models,
            "evaluations": folders.evaluations,
            "splits": folders.splits,
            "registration": tmp_path / "registration",
            "tracking_uri": write_store(tmp_path),
            "include": ["shallow"],
        }
    )
    with caplog.at_level(logging.INFO, logger="cxr"):
        step.execute()
    decision = json.loads((tmp_path / "registration" / "decision.json").read_text())
    assert decision["aliases"] == {"champion": None, "challenger": "1"}
    assert decision["decision"]["promote"] is False
    assert [facts["model"] for facts in decision["candidates"]] == ["shallow"]
    page = (tmp_path / "registration" / "decision.html").read_text()
    assert "Challenger is version 1, champion is nobody." in page
    assert "trained on a CPU" in caplog.text


def test_a_better_model_of_a_cpu_leaves_the_champion_of_a_gpu_and_the_page_says_why(tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["shallow", "three_block"])
    make_metadata("shallow", training={"device": GPU, "seconds": 60.0}).write(folders.models / "shallow")
    champion = replace_evaluation(folders, "shallow", 1.0)["validation_auroc"]
    challenger = replace_evaluation(folders, "three_block", 5.0)["validation_auroc"]
    assert challenger > champion
    values = {
        "models": folders.models, "evaluations": folders.evaluations, "splits": folders.splits,
        "registration": tmp_path / "registration", "tracking_uri": write_store(tmp_path),
        "min_auroc": 0.5, "min_sensitivity": 0.0, "max_calibration_error": 1.0,
    }  # fmt: skip
    Register.build({**values, "include": ["shallow"]}).execute()
    Register.build(values).execute()
    document = json.loads((tmp_path / "registration" / "decision.json").read_text())
    assert document["aliases"] == {"champion": "1", "challenger": "2"}
    assert [rule["name"] for rule in document["decision"]["rules"] if not rule["passed"]] == ["gpu"]
    page = (tmp_path / "registration" / "decision.html").read_text()
    assert "May version 2 (three_block) be champion? No" in page
    assert "trained on a CPU (test processor); the policy wants proof of a GPU" in page


def test_nothing_is_written_when_a_requested_model_is_missing(tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    step = Register.build(
        {
            "models": folders.models,
            "evaluations": folders.evaluations,
            "splits": folders.splits,
            "registration": tmp_path / "registration",
            "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
            "include": ["absent"],
        }
    )
    with pytest.raises(MissingInputError, match="absent"):
        step.execute()
    assert not (tmp_path / "registration").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_limits_out_of_bounds_are_all_reported(tmp_path: Path) -> None:
    with pytest.raises(ParameterError) as caught:
        Register.build({"min_auroc": 1.5, "margin": -1, "floor": 0, "specificity": 1})
    assert len(caught.value.problems) == 4

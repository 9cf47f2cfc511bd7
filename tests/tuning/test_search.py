"""A search finds better values, ends hopeless trials, survives failures, and resumes after a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cxr.errors import TrainingError
from cxr.tuning.report import changed_values, dvc_command, search_facts, trials_table
from cxr.tuning.search import epoch_reporter, search
from cxr.tuning.space import Choices, Range
from cxr.tuning.study import best_trial, open_study, trial_values
from support.forked_processes import run_forked
from support.training_settings import search_plan

SPACE = {"learning_rate": Range(1e-4, 1e-1, log=True), "optimizer": Choices(("adam", "sgd"))}
START = {"optimizer": "sgd", "learning_rate": 0.02}


def simulated_auroc(values, epoch=4):
    """Simulates training: best at a rate of 0.01 with adam, and better with each epoch."""
    distance = abs(math.log10(values["learning_rate"]) + 2)
    return 0.9 - 0.1 * distance - (0.05 if values["optimizer"] == "sgd" else 0.0) + 0.01 * epoch


def train(trial, values):
    report = epoch_reporter(trial, "auroc")
    for epoch in range(1, 5):
        report({"epoch": float(epoch), "val_auroc": simulated_auroc(values, epoch)})
    return simulated_auroc(values)


def run(folder, trials, training=train, digest="d" * 64, monitor="auroc", resume=True, start=None, **options):
    with open_study(folder, digest, monitor=monitor, resume=resume) as study:
        search(
            study,
            SPACE,
            search_plan(trials, **{"startup_trials": 4, "warmup_epochs": 3, **options}),
            training,
            start=start,
        )
        return trials_table(study, SPACE), search_facts(study, trials), best_trial(study)


def test_learning_search_comes_close_to_the_best_values(tmp_path):
    trials, _, best = run(tmp_path, 24, pruner="none")
    assert trial_values(best)["optimizer"] == "adam"
    assert abs(math.log10(trial_values(best)["learning_rate"]) + 2) < 0.2
    assert trials["value"].iloc[12:].mean() > trials["value"].iloc[:8].mean()


def test_loss_is_better_the_lower_it_is(tmp_path):
    trials, outcome, best = run(tmp_path, 6, lambda trial, values: 1 - simulated_auroc(values), monitor="loss")
    assert outcome["best"]["value"] == best.value == trials["value"].min() < trials["value"].max()


def test_the_first_trial_has_the_start_values(tmp_path):
    trials, _, _ = run(tmp_path, 2, start=START)
    assert trials.loc[0, ["optimizer", "learning_rate"]].tolist() == ["sgd", 0.02]


def test_a_trial_that_is_behind_ends_early_after_its_warm_up_and_not_before(tmp_path):
    trials, outcome, _ = run(tmp_path, 16, warmup_epochs=2)
    pruned = trials[trials["state"] == "pruned"]
    assert len(pruned) == outcome["trials"]["pruned"] > 0
    assert set(pruned["epochs"]) == {3}
    assert (trials.iloc[:4]["state"] == "complete").all()
    assert pruned["value"].max() < outcome["best"]["value"]


def test_no_trial_ends_early_without_a_pruner(tmp_path):
    assert set(run(tmp_path, 12, pruner="none")[0]["state"]) == {"complete"}


def test_failed_trials_count_say_why_and_do_not_end_the_search(tmp_path):
    def diverges(trial, values):
        if values["optimizer"] == "sgd":
            raise TrainingError("expected a finite loss, received loss=nan")
        return train(trial, values)

    trials, outcome, best = run(tmp_path, 12, diverges)
    assert outcome["trials"]["failed"] == (trials["optimizer"] == "sgd").sum() > 0
    assert outcome["trials"]["complete"] + outcome["trials"]["pruned"] + outcome["trials"]["failed"] == 12
    assert trials.loc[trials["state"] == "failed", "error"].str.contains("loss=nan").all()
    assert trials.loc[trials["state"] == "failed", "value"].isna().all()
    assert trial_values(best)["optimizer"] == "adam"


def test_a_metric_that_is_not_finite_fails_the_trial(tmp_path):
    _, outcome, best = run(tmp_path, 2, lambda trial, values: math.nan)
    assert outcome["trials"]["failed"] == 2
    assert best is None and outcome["best"] is None


@pytest.mark.parametrize("when", [0, 6])
def test_interrupted_search_goes_on_with_the_trials_of_an_uninterrupted_one(tmp_path, when):
    expected = run(tmp_path / "whole", 9, start=START)[0]

    def interrupted(trial, values):
        if trial.number == when:
            raise KeyboardInterrupt
        return train(trial, values)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", 9, interrupted, start=START)
    trials, outcome, _ = run(tmp_path / "parts", 9, start=START)
    assert outcome["trials"]["killed"] == 1
    assert trials["state"].tolist()[when] == "killed"
    completed = trials[trials["state"] != "killed"].reset_index(drop=True)
    columns = ["state", "value", "learning_rate", "optimizer"]
    assert completed[columns].equals(expected[columns])


def test_killed_search_goes_on_to_the_same_total(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]; import test_search as t\n"
        "def kill(trial, values):\n"
        "    if trial.number == 3: os.kill(os.getpid(), 9)\n"
        "    return t.train(trial, values)\n"
        "t.run(Path(sys.argv[1]), 6, kill)"
    )
    assert run_forked(code, str(tmp_path), str(Path(__file__).parent)).returncode == -9
    trials, outcome, _ = run(tmp_path, 6)
    assert outcome["trials"] == {"wanted": 6, "complete": outcome["trials"]["complete"],
                               "pruned": 6 - outcome["trials"]["complete"], "failed": 0, "killed": 1}  # fmt: skip
    assert trials.loc[3, "state"] == "killed"
    assert trials.loc[3, "learning_rate"] == trials.loc[4, "learning_rate"]


def test_nothing_is_trained_when_nothing_is_left_and_more_when_more_is_wanted(tmp_path):
    first, _, _ = run(tmp_path, 3)

    def never(trial, values):
        raise AssertionError("trained although nothing was left")

    again, _, _ = run(tmp_path, 3, never)
    assert again.equals(first)
    more, _, _ = run(tmp_path, 5)
    assert len(more) == 5
    assert more.iloc[:3].equals(first)


def test_other_data_or_values_begin_another_search_and_say_so(tmp_path, caplog):
    caplog.set_level("INFO", logger="cxr")
    run(tmp_path, 2)
    assert "other data" not in caplog.text
    assert len(run(tmp_path, 1, digest="e" * 64)[0]) == 1
    assert "other data or values" in caplog.text
    assert len(run(tmp_path, 2)[0]) == 2


def test_without_resume_the_trials_before_are_removed(tmp_path):
    run(tmp_path, 3)
    assert len(run(tmp_path, 1, resume=False)[0]) == 1


def test_no_trial_begins_after_the_time_is_over(tmp_path, caplog):
    caplog.set_level("INFO", logger="cxr")
    assert len(run(tmp_path, 4, seconds=0.0)[0]) == 0
    assert "run the same command to go on" in caplog.text


def test_two_searches_at_once_in_one_folder_are_refused(tmp_path):
    with (
        open_study(tmp_path, "d" * 64, monitor="auroc", resume=True),
        pytest.raises(TrainingError, match="one search at a time"),
    ):
        run(tmp_path, 1)


def test_values_to_take_over_are_those_that_differ(tmp_path):
    with open_study(tmp_path, "d" * 64, monitor="auroc", resume=True) as study:
        search(study, SPACE, search_plan(1), train, start=START)
        assert changed_values(study, {"optimizer": "sgd", "learning_rate": 0.001}) == {"learning_rate": 0.02}
        assert changed_values(study, {"optimizer": "sgd", "learning_rate": 0.02}) == {}
        json.dumps(search_facts(study, 1), allow_nan=False)


def test_command_for_dvc_writes_values_into_the_parameter_file(tmp_path, repository):
    from dvc.utils.hydra import apply_overrides
    from ruamel.yaml import YAML

    values = {"optimizer": "rmsprop", "learning_rate": 0.0003, "batch_normalisation": True, "dropout": None}
    arguments = dvc_command("three_block", values, "models").split()
    assert arguments[:3] == ["dvc", "exp", "run"]
    assert set(arguments[3::2]) == {"-S"}
    target = tmp_path / "params.yaml"
    target.write_text((repository / "params.yaml").read_text())
    apply_overrides(target, arguments[4::2])
    written = YAML(typ="safe").load(target)["models"]["three_block"]
    assert {name: written[name] for name in values} == values

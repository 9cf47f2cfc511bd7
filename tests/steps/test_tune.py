"""The step tune: from split and prepared images to values that `cxr train` accepts, without test images."""

from __future__ import annotations

import json
import os
import shutil
import signal
from itertools import takewhile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.cli.main import parse_step
from cxr.data.image_folder import ImageFolder
from cxr.errors import MissingInputError, ParameterError, TrainingError
from cxr.images.preparation import prepare_images
from cxr.images.recipes import recipe_named
from cxr.steps.train import Train
from cxr.steps.tune import Tune
from cxr.tracking.store import Store
from support.forked_processes import COMMAND, ForkedProcess
from support.model_folders import write_store

DIGEST, SPLIT_DIGEST = "d" * 64, "5" * 64
RATES = (1e-8, 3e-3)
"""With the first rate a network learns nothing in two epochs."""
MODEL = {
    "architecture": "shallow",
    "recipe": "s1_resize",
    "optimizer": "adam",
    "learning_rate": RATES[0],
    "batch_size": 16,
    "epochs": 30,
}
PARAMS = {
    "train": {"seed": 3},
    "models": {"small": MODEL},
    "tune": {
        "trials": 3,
        "epochs": 2,
        "monitor": "auroc",
        "seed": 1,
        "startup_trials": 3,
        "space": {"learning_rate": list(RATES), "dropout": {"low": 0.1, "high": 0.3}, "balance": ["none"]},
        "model_space": {"small": {"balance": None}, "other": {"optimizer": ["sgd"]}},
    },
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Split and prepared images; the test images are in the split, but not among the prepared ones."""
    root = tmp_path_factory.mktemp("project")
    generator = np.random.default_rng(0)
    rows = []
    (root / "data").mkdir()
    for number in range(64):
        label = number % 2
        image = generator.integers(0, 120, (24, 24), dtype=np.uint8)
        image[5:13, 5:13] += np.uint8(80 * label)
        path = f"{number}.png"
        cv2.imwrite(str(root / "data" / path), image)
        split = "train" if number < 32 else "validation" if number < 48 else "test"
        rows.append((path, ("NORMAL", "PNEUMONIA")[label], str(number), split))
    artifacts = root / "artifacts"
    splits = pd.DataFrame(rows, columns=["path", "label", "group", "split"])
    (artifacts / "splits").mkdir(parents=True)
    splits.to_parquet(artifacts / "splits" / "splits.parquet")
    achieved = {"digest": SPLIT_DIGEST, "protocol": "grouped"}
    (artifacts / "splits" / "achieved.json").write_text(json.dumps(achieved))
    (artifacts / "manifest").mkdir()
    (artifacts / "manifest" / "summary.json").write_text(json.dumps({"digest": DIGEST}))
    card = {"name": "drawn", "kind": "phantom", "source": "test", "images": 64, "bytes": 1, "licence": "none"}
    (artifacts / "manifest" / "dataset.json").write_text(json.dumps(card))
    prepared_paths = splits.loc[splits["split"] != "test", "path"].tolist()
    recipe = recipe_named("s1_resize", size=24)
    images, folder = ImageFolder(root / "data"), artifacts / "prepared" / "s1_resize"
    prepare_images(images, prepared_paths, recipe, folder, workers=None, progress=False)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    write_store(root)
    return root


@pytest.fixture
def here(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project for one test, as the working folder."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("searches", "tuning", "mlruns", "mlflow.db*"))
    write_store(folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def searched(project: Path) -> Path:
    """The project after a search; read only."""
    working_folder = Path.cwd()
    os.chdir(project)
    try:
        tune().execute()
    finally:
        os.chdir(working_folder)
    return project


def tune(*arguments: str) -> Any:
    return parse_step(Tune, ["--params", "params.yaml", "--model", "small", *arguments])


def search_and_kill(progress: str) -> None:
    """Search in a process that is killed when its log says how far it is."""
    process = ForkedProcess(COMMAND, "tune", "--params", "params.yaml", "--model", "small")
    log = list(takewhile(lambda line: progress not in line, process.stderr))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, log


def trials(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "artifacts/searches/small/trials.csv")


def test_the_better_learning_rate_is_found_without_the_test_images(searched: Path) -> None:
    outcome = json.loads((searched / "artifacts/searches/small/search.json").read_text())
    assert outcome["best"]["values"]["learning_rate"] == RATES[1]
    table = trials(searched)
    assert set(table["learning_rate"]) == set(RATES)
    assert outcome["best"]["value"] == table["value"].max() > table["value"].min()
    assert outcome["trials"]["complete"] == 3
    assert (table["epochs"] == 2).all()
    assert (outcome["data_digest"], outcome["split_digest"]) == (DIGEST, SPLIT_DIGEST)
    assert outcome["device"]["framework"].startswith("tensorflow")
    assert outcome["seconds"] == pytest.approx(table["seconds"].sum(), abs=0.1)


def test_the_search_starts_from_the_values_of_the_model(searched: Path) -> None:
    assert trials(searched)["learning_rate"].iloc[0] == MODEL["learning_rate"]


def test_the_folder_holds_values_table_facts_and_plots_and_no_checkpoints_stay(searched: Path) -> None:
    names = {path.name for path in (searched / "artifacts/searches/small").iterdir()}
    assert names == {"best.yaml", "trials.csv", "search.json", "history.png", "parameters.png"}
    kept_for_next = {"study.db", "study.db.lock", "attempt.txt"}
    assert {path.name for path in (searched / "artifacts/tuning/small").iterdir()} == kept_for_next


def test_best_values_merge_into_a_parameter_file_that_train_accepts(here: Path, searched: Path) -> None:
    patch = yaml.safe_load((searched / "artifacts/searches/small/best.yaml").read_text())
    better = patch["models"]["small"]
    assert set(better) == {"learning_rate", "dropout"}
    params = yaml.safe_load((here / "params.yaml").read_text())
    params["models"]["small"] |= better
    (here / "params.yaml").write_text(yaml.safe_dump(params))
    arguments = ["--params", "params.yaml", "--model", "small", "--prepared", "p", "--trained", "t"]
    train = parse_step(Train, arguments)
    assert (train.learning_rate, train.dropout) == (better["learning_rate"], better["dropout"])
    assert train.epochs == MODEL["epochs"]


def test_every_trial_is_a_run_below_the_run_of_the_search(searched: Path) -> None:
    store = Store(f"sqlite:///{searched}/mlflow.db").client
    (experiment,) = store.search_experiments(filter_string="name = 'pneumonia (phantoms)'")
    runs = store.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 3
    table = trials(searched).set_index("trial")
    for run in children:
        row = table.loc[int(run.data.tags["trial"])]
        assert float(run.data.params["learning_rate"]) == row["learning_rate"]
        assert run.data.metrics["best_val_auroc"] == pytest.approx(row["value"])
        assert [metric.step for metric in store.get_metric_history(run.info.run_id, "val_auroc")] == [1, 2]
        assert (run.data.tags["state"], run.info.status) == ("complete", "FINISHED")
    so_far = [metric.value for metric in store.get_metric_history(parent.info.run_id, "best_val_auroc")]
    assert so_far == pytest.approx(table["value"].cummax().tolist())
    assert "search" in [file.path for file in store.list_artifacts(parent.info.run_id)]


@pytest.mark.exhaustive  # tests/tuning/test_search.py kills a search whose trials take no time
def test_a_killed_search_ends_with_the_trials_of_one_that_was_not(here: Path, searched: Path) -> None:
    search_and_kill("(2 of 3)")
    assert not (here / "artifacts/searches/small").exists()
    tune().execute()
    table = trials(here)
    assert table["state"].tolist() == ["complete", "killed", "complete", "complete"]
    not_killed = table[table["state"] != "killed"].reset_index(drop=True)
    columns = ["value", "epochs", "learning_rate", "dropout"]
    pd.testing.assert_frame_equal(not_killed[columns], trials(searched)[columns])
    (here / "artifacts/searches/small/trials.csv").unlink()
    tune("--tracking_uri", "").execute()
    pd.testing.assert_frame_equal(trials(here), table)


def test_runs_of_a_killed_search_are_closed_by_a_search_of_other_values(here: Path) -> None:
    search_and_kill("epoch 1/2")
    store = Store("sqlite:///mlflow.db").client
    (experiment,) = store.search_experiments(filter_string="name = 'pneumonia (phantoms)'")

    def statuses() -> dict[str, str]:
        runs = store.search_runs([experiment.experiment_id], order_by=["start_time ASC"])
        return {f"{run.info.run_name} {number}": run.info.status for number, run in enumerate(runs)}

    killed = statuses()
    assert list(killed.values()) == ["RUNNING", "RUNNING"]  # the search and its first trial
    tune("--epochs", "1", "--trials", "1").execute()
    ended = statuses()
    assert [ended[name] for name in killed] == ["KILLED", "KILLED"]
    assert list(ended.values())[2:] == ["FINISHED", "FINISHED"]


def test_a_search_without_a_finished_trial_says_so_and_writes_nothing(here: Path) -> None:
    with pytest.raises(TrainingError, match="trained to its end"):
        tune("--timeout_minutes", "0.000001", "--tracking_uri", "").execute()
    assert not (here / "artifacts/searches/small").exists()


def test_all_wrong_values_are_reported_together(here: Path) -> None:
    params = yaml.safe_load((here / "params.yaml").read_text())
    params["models"]["small"]["dropot"] = 0.5
    (here / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ParameterError) as caught:
        tune("--trials", "0", "--space", "{learning_rate: {low: 0, high: 1}, colour: [red], unfrozen_layers: [3]}")
    for part in ("trials='0'", "dropot=0.5", "space.learning_rate.low=0", "space.colour"):
        assert part in str(caught.value), part
    assert caught.value.exit_status == 2


def test_a_network_without_the_option_is_refused(here: Path) -> None:
    with pytest.raises(
        ParameterError, match="batch_normalisation=null for residual_separable, which has no such option"
    ):
        tune("--base", "{architecture: residual_separable}", "--space", "{batch_normalisation: [true, false]}")


def test_a_further_entry_of_a_network_is_searched_like_the_network(here: Path) -> None:
    space = "{batch_normalisation: [true, false]}"
    with pytest.raises(ParameterError, match="batch_normalisation"):
        tune("--base", "{architecture: residual_separable}", "--space", space)
    own = "{residual_separable: {batch_normalisation: null, learning_rate: [0.1]}}"
    tune("--base", "{architecture: residual_separable}", "--space", space, "--model_space", own)


def test_a_model_that_is_no_entry_is_named(here: Path) -> None:
    with pytest.raises(ParameterError, match="model=tiny"):
        parse_step(Tune, ["--params", "params.yaml", "--model", "tiny"])


def test_an_empty_space_is_refused(here: Path) -> None:
    with pytest.raises(ParameterError, match="at least one parameter"):
        tune("--space", "{}")


def test_a_recipe_that_is_not_prepared_is_reported_before_the_first_trial(here: Path) -> None:
    with pytest.raises(MissingInputError, match="s2_resize"):
        tune("--space", "{recipe: [s1_resize, s2_resize]}").execute()
    assert not (here / "artifacts/tuning").exists()

"""The same phantoms through DVC, and in shards through the Kubeflow pipeline in containers, give the same results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.images.prepared import PreparedImages
from cxr.kubeflow.actions.run import RunLocally
from cxr.steps.parameters import override_parameters

pytestmark = pytest.mark.timeout(1500)

MODELS = ["three_block", "shallow"]
SHARDS = 3
CHANGES = {
    "fetch.source": "phantom",
    "fetch.phantom_images": 60,
    "fetch.phantom_seed": 1,
    "models.three_block.phantom_epochs": 2,
    "models.shallow.phantom_epochs": 2,
    "evaluate.resamples": 100,
}


@pytest.fixture(scope="module")
def dvc_artifacts(repository, tag, tmp_path_factory) -> Path:
    """A copy of the project after fetch and dvc repro."""
    folder = tmp_path_factory.mktemp("dvc") / "cxr"
    (folder / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml", ".dvc/config"):
        shutil.copy(repository / name, folder / name)
    shutil.copytree(repository / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    sections = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    values = override_parameters(sections, MODELS, CHANGES)
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in (["git", "init", "-q"], ["cxr", "fetch", "--params", "params.yaml"], ["dvc", "repro"]):
        answer = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    return folder / "artifacts"


@pytest.fixture(scope="module")
def run_folder(repository, tag, tmp_path_factory) -> Path:
    """The folder of the run in containers."""
    runs = tmp_path_factory.mktemp("kubeflow")
    for folder in (runs, *list(runs.parents)[:2]):
        folder.chmod(0o755)
    working_folder = Path.cwd()
    os.chdir(repository)  # pipeline scripts are looked up relative to the root of the repository
    try:
        values = {
            "models": MODELS,
            "changes": CHANGES | {"containers.version": tag, "containers.shards": SHARDS},
            "runs": str(runs),
        }
        RunLocally.build(values).execute()
    finally:
        os.chdir(working_folder)
    return next(runs.glob("*/cxr-training-*"))


def test_manifest_and_splits_are_the_same(dvc_artifacts, run_folder):
    for name, file in (("validate/manifest", "manifest/manifest.parquet"), ("resplit/splits", "splits/splits.parquet")):
        pd.testing.assert_frame_equal(
            pd.read_parquet(run_folder / name / file.split("/")[1]),
            pd.read_parquet(dvc_artifacts / file),
            check_like=True,
        )


def test_shards_prepare_the_same_images(dvc_artifacts, run_folder, tmp_path):
    shards = [path.parent for path in run_folder.glob("for-loop-*/preprocess*/prepared/shard.json")]
    recipes = {json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["name"] for folder in shards}
    assert len(shards) == SHARDS * len(recipes)
    for recipe in recipes:
        (tmp_path / recipe).mkdir()
        own = [
            path for path in shards if json.loads((path / "recipe.json").read_text(encoding="utf-8"))["name"] == recipe
        ]
        for number, folder in enumerate(own):
            (tmp_path / recipe / str(number)).symlink_to(folder)
        joined, expected = (
            PreparedImages.open(tmp_path / recipe),
            PreparedImages.open(dvc_artifacts / "prepared" / recipe),
        )
        pd.testing.assert_frame_equal(joined.index, expected.index)


def test_every_model_gives_the_same_predictions(dvc_artifacts, run_folder):
    evaluations = sorted(run_folder.glob("evaluate*/evaluation/predictions.parquet"))
    assert len(evaluations) == len(MODELS)
    probabilities = [pd.read_parquet(path).sort_values("path")["probability"].to_numpy() for path in evaluations]
    for model in MODELS:
        expected = pd.read_parquet(dvc_artifacts / "evaluations" / model / "predictions.parquet").sort_values("path")
        difference = min(np.abs(values - expected["probability"].to_numpy()).max() for values in probabilities)
        assert difference < 1e-3, f"{model}: {difference}"


def test_the_ensemble_has_the_same_metrics(dvc_artifacts, run_folder):
    expected = json.loads((dvc_artifacts / "ensemble/evaluation/summary.json").read_text(encoding="utf-8"))
    summary = json.loads((run_folder / "ensemble/ensemble/evaluation/summary.json").read_text(encoding="utf-8"))
    metrics = {key for key, value in expected.items() if isinstance(value, float)}
    assert metrics and set(summary) == set(expected)
    for key in metrics:
        assert summary[key] == pytest.approx(expected[key], abs=1e-3), key


def test_registered_models_name_run_commit_and_image(run_folder):
    decision = json.loads((run_folder / "register/registration/decision.json").read_text(encoding="utf-8"))
    assert decision["candidates"] or decision["versions"]
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in run_folder.glob("train*/trained/card.json")]
    assert len(cards) == len(MODELS)
    for card in cards:
        assert card["pipeline_run"] == f"local-{run_folder.parent.name}"
        assert card["image_digest"].startswith("sha256:")
        assert len(card["git_commit"].removesuffix("-dirty")) == 40
        assert card["environment"].startswith("run.txt sha256:") and "differ" not in card["environment"]

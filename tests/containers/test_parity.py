"""The same phantoms through DVC here and through the Kubeflow pipeline in containers: the same figures."""

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

from cxr.kubeflow.actions.run import Run, changed

pytestmark = pytest.mark.timeout(1500)

MODELS = ["three_block", "shallow"]
CHANGES = {
    "fetch.source": "phantom",
    "fetch.phantom_images": 60,
    "fetch.phantom_seed": 1,
    "models.three_block.phantom_epochs": 2,
    "models.shallow.phantom_epochs": 2,
    "evaluate.resamples": 100,
}


@pytest.fixture(scope="module")
def here(repository, tag, tmp_path_factory) -> Path:
    """A copy of the project after fetch and dvc repro."""
    folder = tmp_path_factory.mktemp("here") / "cxr"
    (folder / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml", ".dvc/config"):
        shutil.copy(repository / name, folder / name)
    shutil.copytree(repository / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    sections = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    values = changed(sections, MODELS, CHANGES)
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for words in (["git", "init", "-q"], ["cxr", "fetch", "--params", "params.yaml"], ["dvc", "repro"]):
        answer = subprocess.run(words, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    return folder / "artifacts"


@pytest.fixture(scope="module")
def there(repository, tag, tmp_path_factory) -> Path:
    """The folder of the run in containers."""
    runs = tmp_path_factory.mktemp("there")
    for folder in (runs, *list(runs.parents)[:2]):
        folder.chmod(0o755)
    before = Path.cwd()
    os.chdir(repository)  # the pipeline scripts are found from the root of the repository
    try:
        values = {"models": MODELS, "changes": CHANGES | {"containers.version": tag}, "runs": str(runs)}
        Run.build(values).execute()
    finally:
        os.chdir(before)
    return next(runs.glob("*/cxr-training-*"))


def test_manifest_and_splits_are_the_same(here, there):
    for name, file in (("validate/manifest", "manifest/manifest.parquet"), ("resplit/splits", "splits/splits.parquet")):
        pd.testing.assert_frame_equal(
            pd.read_parquet(there / name / file.split("/")[1]), pd.read_parquet(here / file), check_like=True
        )


def test_every_model_gives_the_same_answers(here, there):
    evaluations = sorted(there.glob("evaluate*/evaluation/predictions.parquet"))
    assert len(evaluations) == len(MODELS)
    answers = [pd.read_parquet(path).sort_values("path")["probability"].to_numpy() for path in evaluations]
    for model in MODELS:
        expected = pd.read_parquet(here / "evaluations" / model / "predictions.parquet").sort_values("path")
        nearest = min(np.abs(one - expected["probability"].to_numpy()).max() for one in answers)
        assert nearest < 1e-3, f"{model}: {nearest}"


def test_the_join_of_the_models_has_the_same_figures(here, there):
    expected = json.loads((here / "ensemble/evaluation/summary.json").read_text(encoding="utf-8"))
    found = json.loads((there / "ensemble/ensemble/evaluation/summary.json").read_text(encoding="utf-8"))
    figures = {key for key, value in expected.items() if isinstance(value, float)}
    assert figures and set(found) == set(expected)
    for key in figures:
        assert found[key] == pytest.approx(expected[key], abs=1e-3), key


def test_what_was_registered_names_run_commit_and_image(there):
    decision = json.loads((there / "register/registration/decision.json").read_text(encoding="utf-8"))
    assert decision["candidates"] or decision["versions"]
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in there.glob("train*/trained/card.json")]
    assert len(cards) == len(MODELS)
    for card in cards:
        assert card["pipeline_run"] == f"local-{there.parent.name}"
        assert card["image_digest"].startswith("sha256:")
        assert len(card["git_commit"].removesuffix("-dirty")) == 40
        assert card["environment"].startswith("run.txt sha256:") and "differ" not in card["environment"]

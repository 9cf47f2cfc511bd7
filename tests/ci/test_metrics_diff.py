"""`make metrics-diff` runs two commits on the same phantoms, and says what differs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

SCORE = """import json, pathlib, yaml
model = yaml.safe_load(open("params.yaml"))["models"]["net"]
images = len(list(pathlib.Path("data").rglob("*.jpeg")))
json.dump({"auroc": 1 - model["dropout"], "images": images}, open("summary.json", "w"))
"""
STAGE = {
    "cmd": "python score.py",
    "deps": ["data", "score.py"],
    "params": ["models"],
    "metrics": ["summary.json"],
}
"""A pipeline that takes no time: the real one differs in what its stages do."""


@pytest.fixture(scope="module")
def metrics_diff(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("metrics_diff", repository / ".ci" / "metrics_diff.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Branches: `main`, and three that leave it: `text` changes a text, `dropout` a value, `broken` the code."""
    folder = tmp_path_factory.mktemp("project")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
    params = {"fetch": {"phantom_images": 600}, "models": {"net": {"dropout": 0.5}}}
    (folder / ".gitignore").write_text("/data\n/downloads\n")
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"ensemble": STAGE}}))
    (folder / "score.py").write_text(SCORE)
    changes = {
        "text": ("README.md", "A project\n"),
        "dropout": ("params.yaml", yaml.safe_dump(params | {"models": {"net": {"dropout": 0.25}}})),
        "broken": ("score.py", "import sys\nsys.exit('no score')\n"),
    }
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "First")
    for branch, (name, text) in changes.items():
        git(folder, "checkout", "--quiet", "-b", branch, "main")
        (folder / name).write_text(text)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", branch)
    git(folder, "checkout", "--quiet", "main")
    (folder / "later.txt").write_text("A change of the base that is no change of the heads\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Later")
    return folder


@pytest.fixture(autouse=True)
def few_images(metrics_diff: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics_diff.REDUCED, "fetch.phantom_images", 20)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.exhaustive  # the failing run below takes the same way up to the tables
def test_a_changed_value_and_the_metrics_that_it_moves_are_in_the_tables(
    metrics_diff: ModuleType, project: Path, tmp_path: Path
) -> None:
    words = ["--repository", str(project), "--base", "main", "--head", "dropout", "--output", str(tmp_path / "diff")]
    assert metrics_diff.main(words) == 0
    metrics = (tmp_path / "diff" / "metrics.md").read_text().splitlines()
    assert [cell.strip() for cell in metrics[0].split("|")[1:-1]] == ["Path", "Metric", "base", "head", "Change"]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in metrics[2:]]
    assert rows == [["summary.json", "auroc", "0.5", "0.75", "0.25"]]
    assert "| models.net.dropout | 0.5" in (tmp_path / "diff" / "params.md").read_text()
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "tag") == ""


@pytest.mark.exhaustive  # of the two commits above, too, only what differs is in the tables
def test_without_a_difference_the_tables_are_empty(metrics_diff: ModuleType, project: Path, tmp_path: Path) -> None:
    words = ["--repository", str(project), "--base", "main", "--head", "text", "--output", str(tmp_path / "diff")]
    assert metrics_diff.main(words) == 0
    assert (tmp_path / "diff" / "metrics.md").read_text() == ""
    assert (tmp_path / "diff" / "params.md").read_text() == ""


def test_a_run_that_fails_says_so_and_an_older_comparison_stays(
    metrics_diff: ModuleType, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.md").write_text("older")
    words = ["--repository", str(project), "--base", "broken", "--head", "broken", "--output", str(tmp_path)]
    assert metrics_diff.main(words) == 1
    assert "from: dvc repro ensemble" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.md"]
    assert (tmp_path / "metrics.md").read_text() == "older"


@pytest.mark.parametrize("base", ["nowhere", "--help-me", ""])
def test_a_base_that_does_not_exist_is_a_mistake(
    metrics_diff: ModuleType, project: Path, tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--repository", str(project), f"--base={base}", "--output", str(tmp_path / "diff")]
    assert metrics_diff.main(words) == 2
    assert f"received {base!r}" in capsys.readouterr().err
    assert not (tmp_path / "diff").exists()


def test_a_folder_with_other_files_is_never_replaced(metrics_diff: ModuleType, project: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert metrics_diff.main(["--repository", str(project), "--base", "main", "--output", str(tmp_path)]) == 2
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_figures_that_cannot_be_read_are_an_error_and_no_empty_table(metrics_diff: ModuleType) -> None:
    unread = {"summary.json": {"error": {"type": "FileNotFoundError", "msg": "No storage files available"}}}
    with pytest.raises(metrics_diff.RunError, match=r"figures of head in summary\.json"):
        metrics_diff.check_metrics({"base": {"data": {"summary.json": {"data": {}}}}, "head": {"data": unread}})


def test_values_of_the_short_run_exist_in_the_parameters(metrics_diff: ModuleType, repository: Path) -> None:
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    stages = yaml.safe_load((repository / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert all(place.split(".")[1] in params[place.split(".")[0]] for place in metrics_diff.REDUCED)
    assert metrics_diff.LAST_STAGE in stages

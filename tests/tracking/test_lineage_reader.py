"""From a version one reaches everything it was made from, and its commit can be checked out again."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cxr.cli import main
from cxr.data.version import folder_md5
from cxr.errors import MissingInputError, ParameterError, RegistryError
from cxr.lineage.provenance import file_digest
from cxr.promotion.rules import Policy
from cxr.tracking.connection import client
from cxr.tracking.lineage_reader import fetch_record, lineage
from cxr.tracking.registry import Run, register
from support.model_folders import Folders, card, write_models

NAME = "pneumonia-classifier"
DATASET = {"name": "kermany", "kind": "patients", "source": "kermany224.tar", "licence": "CC BY 4.0"}
PINS = "numpy==2.4.0\n"
ENVIRONMENT = "run.txt sha256:fa4a9b2c4ee6ff9ac5f3d5d2ce5db9a5bd8a2c0d3d8e9d0d4d6b9f2d4a8e6c11"
PARAMETERS = {
    "tracking": {"experiment": "pneumonia"},
    "train": {"seed": 0},
    "models": {"three_block": {"architecture": "three_block", "learning_rate": 0.001}},
}


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    answer = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


@dataclass(frozen=True)
class Project:
    """A repository whose model was trained by DVC from its only commit."""

    root: Path
    uri: str
    commit: str
    folders: Folders

    def register(self, **options: Any) -> None:
        easy = Policy(False, 0.0, 0.0, 1.0, margin=1.0, sensitivity_margin=1.0, resamples=100)
        run = Run(Path("artifacts/models"), Path("artifacts/evaluations"), self.folders.splits, **options)
        register(run, uri=self.uri, experiment="pneumonia", registered_name=NAME, policy=easy)

    def retrain(self, **changes: Any) -> None:
        """Another training of the model, that DVC doesn't know of."""
        changed = card(**{"dataset": DATASET, "git_commit": self.commit, **changes})
        changed.write(self.folders.models / "three_block")
        changed.completed(2.5, 0.6, "chosen by hand").write(self.folders.evaluations / "three_block")

    def run(self, *words: str) -> int:
        return main.main([*words, "--tracking_uri", self.uri])


@pytest.fixture
def project(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "requirements").mkdir()
    monkeypatch.chdir(root)
    (root / "src" / "code.py").write_text("print('trained')\n")
    (root / "requirements" / "run.txt").write_text(PINS)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMETERS))
    (root / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    (root / ".gitignore").write_text("artifacts\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    commit = git(root, "rev-parse", "HEAD")
    changes = {"dataset": DATASET, "git_commit": commit, "environment": ENVIRONMENT}
    folders = write_models(root / "artifacts", **changes)
    trained = Path("artifacts/models/three_block")
    used = {"architecture": "three_block", "learning_rate": 0.001, "seed": 0}
    (trained / "training.json").write_text(json.dumps({"run_id": None, "parameters": used}))
    out = {"path": str(trained), "md5": folder_md5(trained)}
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train@three_block": {"outs": [out]}}}))
    return Project(root, uri, commit, folders)


def test_tags_lead_to_data_code_and_files(project: Project, tmp_path: Path) -> None:
    project.register()
    found = lineage(project.uri, NAME, "champion")
    wanted = {
        "data_md5": "abc.dir",
        "data_source": "kermany224.tar",
        "data_licence": "CC BY 4.0",
        "git_commit": project.commit,
        "registered_from": project.commit,
        "environment": ENVIRONMENT,
        "dvc_lock": f"sha256:{file_digest(project.root / 'dvc.lock')}",
        "dvc_stage": "train@three_block",
        "params": f"sha256:{file_digest(project.root / 'params.yaml')}",
        "evaluation": f"runs:/{found.run_id}/evaluation",
    }
    assert {key: found.tags.get(key) for key in wanted} == wanted
    assert not {"pipeline_run", "image_digest", "report"} & set(found.tags)
    record = fetch_record(project.uri, found, tmp_path / "record")
    assert record is not None
    for name in ("params.yaml", "dvc.lock", "data.dvc"):
        assert (record / name).read_bytes() == (project.root / name).read_bytes()
    assert "# three_block: pneumonia" in (record / "MODEL_CARD.md").read_text()


def test_what_ran_in_a_container_names_its_pipeline_run_and_image(project: Project) -> None:
    project.retrain(pipeline_run="run-7", image_digest="sha256:12")
    project.register()
    tags = lineage(project.uri, NAME, "1").tags
    assert (tags["pipeline_run"], tags["image_digest"]) == ("run-7", "sha256:12")


def test_each_version_of_a_run_keeps_its_own_record(project: Project, tmp_path: Path) -> None:
    project.register()
    judged = project.folders.evaluations / "three_block"
    card(dataset=DATASET, git_commit=project.commit).completed(2.5, 0.7, "moved up").write(judged)
    (project.root / "params.yaml").write_text("train: {seed: 1}\n")
    project.register()
    first, second = (lineage(project.uri, NAME, number) for number in ("1", "2"))
    assert first.run_id == second.run_id
    assert first.tags["record"] != second.tags["record"]
    texts = [
        (fetch_record(project.uri, one, tmp_path / one.version) / "params.yaml").read_text()  # type: ignore[operator]
        for one in (first, second)
    ]
    assert texts == [yaml.safe_dump(PARAMETERS), "train: {seed: 1}\n"]


def test_the_page_shows_the_model_card_with_links_and_the_version_carries_it(project: Project) -> None:
    project.register()
    version = client(project.uri).get_model_version(NAME, "1")
    assert len(version.description) <= 5000
    for words in ("## Not for", "children of one to five years", f"/runs/{version.run_id}/artifacts/registered/"):
        assert words in version.description
    experiment = client(project.uri).get_run(version.run_id).info.experiment_id
    assert f"](#/experiments/{experiment}/runs/{version.run_id})" in version.description
    carried = Path(version.source) / "artifacts" / "artifact" / "MODEL_CARD.md"
    assert carried.read_text().startswith("# three_block: pneumonia")


def test_lineage_prints_the_way_back(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.register()
    assert project.run("lineage", "1") == 0
    text = capsys.readouterr().out
    run_id = lineage(project.uri, NAME, "1").run_id
    for line in (
        f"{NAME} version 1 (challenger, champion)",
        f"commit          {project.commit}".replace("commit  ", "commit"),
        "kermany224.tar",
        "train@three_block",
        "none: run by hand or by DVC",
        f"three_block {run_id}",
        f"runs:/{run_id}/evaluation",
        "validation_auroc",
    ):
        assert " ".join(line.split()) in " ".join(text.split()), line
    assert "gone from the store" not in text


def test_lineage_for_programs_is_json(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.register()
    assert project.run("lineage", "champion", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    summary = json.loads((project.folders.evaluations / "three_block" / "summary.json").read_text())
    assert found["tags"]["git_commit"] == project.commit
    assert found["figures"]["validation_auroc"] == summary["validation_auroc"]


def test_lineage_says_what_the_store_no_longer_has(project: Project) -> None:
    project.register()
    found = lineage(project.uri, NAME, "1")
    assert found.absent == ()
    shutil.rmtree(Path(str(found.run_files)) / "registered")
    assert lineage(project.uri, NAME, "1").absent == ("record",)
    client(project.uri).delete_run(str(found.run_id))
    assert lineage(project.uri, NAME, "1").absent == ("training run",)


def test_a_version_that_is_not_there_is_a_mistake_of_the_caller(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ParameterError, match="does not know; run `cxr register`"):
        lineage(project.uri, NAME, "1")
    project.register()
    assert project.run("lineage", "9") == 2
    assert "received version='9'; there are versions 1 and aliases challenger, champion" in capsys.readouterr().err


def test_asking_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="run `cxr register`"):
        lineage(f"sqlite:///{tmp_path}/none.db", NAME, "1")
    assert not list(tmp_path.iterdir())


def test_members_of_an_ensemble_lead_to_their_own_versions(half_lungs: tuple[Folders, Path], uri: str) -> None:
    folders, ensemble = half_lungs
    run = Run(
        folders.models, folders.evaluations, folders.splits, ensemble=ensemble, include=["left", "right", "weighted"]
    )
    register(run, uri=uri, experiment="pneumonia", registered_name=NAME, policy=Policy(require_gpu=False))
    found = lineage(uri, NAME, "3")
    assert [(one.model, one.version) for one in found.members] == [("left", "1"), ("reversed", None), ("right", "2")]
    assert found.members[0].run_id == lineage(uri, NAME, "1").run_id
    assert "reversed  weight 0.0000, not registered on its own" in found.to_text()


def test_reproduce_checks_out_the_commit_with_the_recorded_files(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {**PARAMETERS, "resplit": {"seed": 4}}
    (project.root / "params.yaml").write_text(yaml.safe_dump(changed))
    project.register()
    (project.root / "params.yaml").write_text("of another run: 1\n")
    (project.root / "src" / "code.py").write_text("print('later')\n")
    git(project.root, "commit", "-q", "-a", "-m", "later")
    before = git(project.root, "status", "--porcelain"), git(project.root, "rev-parse", "HEAD")
    folder = tmp_path / "again"
    assert project.run("reproduce", "champion", "--folder", str(folder)) == 0
    text = capsys.readouterr().out
    assert git(folder, "rev-parse", "HEAD") == project.commit
    assert (folder / "src" / "code.py").read_text() == "print('trained')\n"
    assert yaml.safe_load((folder / "params.yaml").read_text()) == changed
    assert (folder / "dvc.lock").read_bytes() == (project.root / "dvc.lock").read_bytes()
    assert (git(project.root, "status", "--porcelain"), git(project.root, "rev-parse", "HEAD")) == before
    for words in (
        f"cd {folder}",
        "--source PATH/TO/kermany224.tar",
        "dvc repro evaluate@three_block",
        "md5 abc.dir",
        "is NOT the recorded one",
        "not as in the commit: params.yaml, dvc.lock",
        f"validation_auroc {lineage(project.uri, NAME, '1').figures['validation_auroc']:.6f}",
    ):
        assert words in text, words
    assert "names other data" not in text and "values that params.yaml does not hold" not in text


def test_a_value_given_by_a_flag_is_told(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used = {"architecture": "three_block", "learning_rate": 0.02, "seed": 0}
    (project.folders.models / "three_block" / "training.json").write_text(json.dumps({"parameters": used}))
    project.register()
    assert project.run("reproduce", "1", "--folder", str(tmp_path / "again")) == 0
    text = capsys.readouterr().out
    assert "write them there first: learning_rate: 0.02." in text
    assert "did not describe this model: it was trained by hand" in text


def test_a_folder_in_use_is_left_alone(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project.register()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert project.run("reproduce", "1", "--folder", str(folder)) == 2
    assert f"received folder={folder}; name another one" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("commit", "message"),
    [
        (None, "received a version without one"),
        ("{commit}-dirty", "changes that were not committed, which nobody can check out"),
        ("1" * 40, "which it does not hold; run `git fetch --all`"),
    ],
)
def test_a_commit_that_cannot_be_checked_out_is_refused(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], commit: str | None, message: str
) -> None:
    project.retrain(git_commit=commit and commit.format(commit=project.commit))
    project.register()
    folder = tmp_path / "again"
    assert project.run("reproduce", "1", "--folder", str(folder)) in {1, 2}
    assert message in capsys.readouterr().err
    assert not folder.exists()
    assert project.run("reproduce", "1", "--folder", str(folder), "--commit", project.commit[:10]) == 0
    assert git(folder, "rev-parse", "HEAD") == project.commit


def test_a_record_whose_files_are_gone_is_told(project: Project, tmp_path: Path) -> None:
    project.register()
    found = lineage(project.uri, NAME, "1")
    shutil.rmtree(Path(str(found.run_files)) / "registered")
    with pytest.raises(RegistryError, match=r"cannot read runs:/.*/registered/"):
        fetch_record(project.uri, found, tmp_path)

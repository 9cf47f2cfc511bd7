"""The lineage of a version leads to all that it was created from, and its commit can be checked out again."""

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
from cxr.data.dvc_hashes import folder_md5
from cxr.errors import MissingInputError, ParameterError, RegistryError
from cxr.lineage.provenance import file_digest
from cxr.promotion.candidates import RunFolders
from cxr.tracking.lineage_reader import fetch_record, read_lineage
from cxr.tracking.store import Store
from support.model_folders import ModelFolders, make_metadata, write_models
from support.promotion_policies import EASY_POLICY, promotion_policy
from support.registrations import register

NAME = "pneumonia-classifier"
DATASET = {"name": "kermany", "kind": "patients", "source": "kermany224.tar", "licence": "CC BY 4.0"}
PINS = "numpy==2.4.0\n"
ENVIRONMENT = "run.txt sha256:fa4a9b2c4ee6ff9ac5f3d5d2ce5db9a5bd8a2c0d3d8e9d0d4d6b9f2d4a8e6c11"
PARAMETERS = {
    "tracking": {"experiment": "pneumonia"},
    "train": {"seed": 0},
    "models": {"three_block": {"architecture": "three_block", "learning_rate": 0.001}},
}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    process = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return process.stdout.strip()


@dataclass(frozen=True)
class Project:
    """A repository whose model was trained by DVC from its only commit."""

    root: Path
    store: Store
    commit: str
    folders: ModelFolders

    def register(self, **options: Any) -> None:
        run = RunFolders(Path("artifacts/models"), Path("artifacts/evaluations"), self.folders.splits, **options)
        register(self.store, run, experiment="pneumonia", registered_name=NAME, policy=EASY_POLICY)

    def retrain(self, **changes: Any) -> None:
        """Train the model again without DVC."""
        metadata = make_metadata(**{"dataset": DATASET, "git_commit": self.commit, **changes})
        metadata.write(self.folders.models / "three_block")
        metadata.with_calibration(2.5, 0.6, "chosen by hand").write(self.folders.evaluations / "three_block")

    def run(self, *arguments: str) -> int:
        return main.main([*arguments, "--tracking_uri", self.store.uri])


@pytest.fixture
def project(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Project:
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
    parameters = {"architecture": "three_block", "learning_rate": 0.001, "seed": 0}
    (trained / "training.json").write_text(json.dumps({"run_id": None, "parameters": parameters}))
    out = {"path": str(trained), "md5": folder_md5(trained)}
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train@three_block": {"outs": [out]}}}))
    return Project(root, store, commit, folders)


def test_tags_lead_to_data_code_and_files(project: Project, tmp_path: Path) -> None:
    project.register()
    lineage = read_lineage(project.store, NAME, "champion")
    expected = {
        "data_md5": "abc.dir",
        "data_source": "kermany224.tar",
        "data_licence": "CC BY 4.0",
        "git_commit": project.commit,
        "registered_from": project.commit,
        "environment": ENVIRONMENT,
        "dvc_lock": f"sha256:{file_digest(project.root / 'dvc.lock')}",
        "dvc_stage": "train@three_block",
        "params": f"sha256:{file_digest(project.root / 'params.yaml')}",
        "evaluation": f"runs:/{lineage.run_id}/evaluation",
    }
    assert {key: lineage.tags.get(key) for key in expected} == expected
    assert not {"pipeline_run", "image_digest", "report"} & set(lineage.tags)
    record = fetch_record(project.store, lineage, tmp_path / "record")
    assert record is not None
    for name in ("params.yaml", "dvc.lock", "data.dvc"):
        assert (record / name).read_bytes() == (project.root / name).read_bytes()
    assert "# three_block: pneumonia" in (record / "MODEL_CARD.md").read_text()


def test_what_ran_in_a_container_names_its_pipeline_run_and_image(project: Project) -> None:
    project.retrain(pipeline_run="run-7", image_digest="sha256:12")
    project.register()
    tags = read_lineage(project.store, NAME, "1").tags
    assert (tags["pipeline_run"], tags["image_digest"]) == ("run-7", "sha256:12")


def test_each_version_of_a_run_keeps_its_own_record(project: Project, tmp_path: Path) -> None:
    project.register()
    evaluation = project.folders.evaluations / "three_block"
    make_metadata(dataset=DATASET, git_commit=project.commit).with_calibration(2.5, 0.7, "moved up").write(evaluation)
    (project.root / "params.yaml").write_text("train: {seed: 1}\n")
    project.register()
    first, second = (read_lineage(project.store, NAME, number) for number in ("1", "2"))
    assert first.run_id == second.run_id
    assert first.tags["record"] != second.tags["record"]
    texts = [
        (fetch_record(project.store, lineage, tmp_path / lineage.version) / "params.yaml").read_text()  # type: ignore[operator]
        for lineage in (first, second)
    ]
    assert texts == [yaml.safe_dump(PARAMETERS), "train: {seed: 1}\n"]


def test_the_page_shows_the_model_card_with_links_and_the_version_carries_it(project: Project) -> None:
    project.register()
    version = project.store.client.get_model_version(NAME, "1")
    assert len(version.description) <= 5000
    for fragment in ("## Not for", "children of one to five years", f"/runs/{version.run_id}/artifacts/registered/"):
        assert fragment in version.description
    experiment = project.store.client.get_run(version.run_id).info.experiment_id
    assert f"](#/experiments/{experiment}/runs/{version.run_id})" in version.description
    carried = Path(version.source) / "artifacts" / "artifact" / "MODEL_CARD.md"
    assert carried.read_text().startswith("# three_block: pneumonia")


def test_lineage_prints_the_origin(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.register()
    assert project.run("lineage", "1") == 0
    text = capsys.readouterr().out
    run_id = read_lineage(project.store, NAME, "1").run_id
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
    values = json.loads(capsys.readouterr().out)
    summary = json.loads((project.folders.evaluations / "three_block" / "summary.json").read_text())
    assert values["tags"]["git_commit"] == project.commit
    assert values["figures"]["validation_auroc"] == summary["validation_auroc"]


def test_lineage_says_what_the_store_no_longer_has(project: Project) -> None:
    project.register()
    lineage = read_lineage(project.store, NAME, "1")
    assert lineage.absent == ()
    shutil.rmtree(Path(str(lineage.run_files)) / "registered")
    assert read_lineage(project.store, NAME, "1").absent == ("record",)
    project.store.client.delete_run(str(lineage.run_id))
    assert read_lineage(project.store, NAME, "1").absent == ("training run",)


def test_an_unknown_version_is_an_error_of_the_caller(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ParameterError, match="does not know; run `cxr register`"):
        read_lineage(project.store, NAME, "1")
    project.register()
    assert project.run("lineage", "9") == 2
    assert "received version='9'; there are versions 1 and aliases challenger, champion" in capsys.readouterr().err


def test_reading_a_lineage_creates_no_store(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="run `cxr register`"):
        read_lineage(Store(f"sqlite:///{tmp_path}/none.db"), NAME, "1")
    assert not list(tmp_path.iterdir())


def test_members_of_an_ensemble_lead_to_their_own_versions(half_lungs: tuple[ModelFolders, Path], store: Store) -> None:
    folders, ensemble = half_lungs
    run = RunFolders(
        folders.models, folders.evaluations, folders.splits, ensemble=ensemble, include=["left", "right", "weighted"]
    )
    register(store, run, experiment="pneumonia", registered_name=NAME, policy=promotion_policy(require_gpu=False))
    lineage = read_lineage(store, NAME, "3")
    assert [(member.model, member.version) for member in lineage.members] == [
        ("left", "1"),
        ("reversed", None),
        ("right", "2"),
    ]
    assert lineage.members[0].run_id == read_lineage(store, NAME, "1").run_id
    assert "reversed  weight 0.0000, not registered on its own" in lineage.to_text()


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
    for fragment in (
        f"cd {folder}",
        "--source PATH/TO/kermany224.tar",
        "dvc repro evaluate@three_block",
        "md5 abc.dir",
        "is NOT the recorded one",
        "not as in the commit: params.yaml, dvc.lock",
        f"validation_auroc {read_lineage(project.store, NAME, '1').measures['validation_auroc']:.6f}",
    ):
        assert fragment in text, fragment
    assert "names other data" not in text and "values that params.yaml does not hold" not in text


def test_a_value_given_by_a_flag_is_reported(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {"architecture": "three_block", "learning_rate": 0.02, "seed": 0}
    (project.folders.models / "three_block" / "training.json").write_text(json.dumps({"parameters": parameters}))
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


def test_a_record_whose_files_are_gone_is_reported(project: Project, tmp_path: Path) -> None:
    project.register()
    lineage = read_lineage(project.store, NAME, "1")
    shutil.rmtree(Path(str(lineage.run_files)) / "registered")
    with pytest.raises(RegistryError, match=r"cannot read runs:/.*/registered/"):
        fetch_record(project.store, lineage, tmp_path)

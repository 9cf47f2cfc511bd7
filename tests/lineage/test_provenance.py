"""What a result was made with: commit, data, packages and container, as they are recorded."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from cxr.data.dvc_hashes import folder_md5, pointer_md5
from cxr.errors import DataError
from cxr.lineage.provenance import (
    CONTAINER_IMAGE_FOLDER,
    current_provenance,
    data_md5,
    describe_environment,
    dvc_stage,
    git_commit,
    requirements_digest,
)


@pytest.fixture(autouse=True)
def outside_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CXR_GIT_COMMIT", "CXR_PIPELINE_RUN", "CXR_IMAGE_DIGEST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "code.py").write_text("first\n")
    (tmp_path / "params.yaml").write_text("first\n")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    (checkout / "untracked.txt").write_text("not part of the code\n")
    commit = git_commit(checkout)
    assert commit is not None and len(commit) == 40


def test_changed_code_makes_the_commit_dirty(checkout: Path) -> None:
    clean = git_commit(checkout)
    (checkout / "src" / "code.py").write_text("second\n")
    assert git_commit(checkout) == f"{clean}-dirty"


def test_changed_parameters_do_not_make_the_commit_dirty(checkout: Path) -> None:
    clean = git_commit(checkout)
    (checkout / "params.yaml").write_text("second\n")
    assert git_commit(checkout) == clean


def test_commit_is_unknown_without_checkout_commit_or_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q"], check=True)
    assert git_commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None


def test_commit_comes_from_the_environment_variable_outside_a_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = checkout / "outside"
    outside.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout))
    monkeypatch.setenv("CXR_GIT_COMMIT", "e" * 40)
    assert git_commit(outside) == "e" * 40
    assert git_commit(checkout) not in (None, "e" * 40), "the checkout takes precedence"
    monkeypatch.setenv("CXR_GIT_COMMIT", "")
    assert git_commit(outside) is None


def test_data_version_comes_from_the_pointer(tmp_path: Path) -> None:
    pointer = tmp_path / "data.dvc"
    pointer.write_text("outs:\n- md5: 0123abcd.dir\n  size: 5\n  path: data\n")
    assert data_md5(pointer) == "0123abcd.dir"


def test_data_version_comes_from_the_pipeline_without_a_pointer(tmp_path: Path) -> None:
    pointer = tmp_path / "data.dvc"
    assert data_md5(pointer, "0123abcd.dir") == "0123abcd.dir"
    assert pointer_md5(pointer) is None
    pointer.write_text("outs:\n- md5: 0123abcd.dir\n")
    assert data_md5(pointer, "0123abcd.dir") == "0123abcd.dir"


def test_contradicting_data_versions_are_refused(tmp_path: Path) -> None:
    pointer = tmp_path / "data.dvc"
    pointer.write_text("outs:\n- md5: 4567.dir\n")
    with pytest.raises(DataError, match=r"data_version=0123\.dir .*data\.dvc with md5=4567\.dir; leave"):
        data_md5(pointer, "0123.dir")


@pytest.mark.parametrize("text", ["", "outs: []", "outs:\n- path: data\n", "a: [", "- 1"])
def test_data_version_is_unknown_without_a_readable_hash(tmp_path: Path, text: str) -> None:
    pointer = tmp_path / "data.dvc"
    pointer.write_text(text)
    assert data_md5(pointer) is None
    assert data_md5(tmp_path / "absent.dvc") is None


def test_requirements_digest_depends_only_on_the_pins(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    first.write_text("numpy==2.4.0\n")
    second.write_text("# a comment\n\n  numpy==2.4.0\n")
    third.write_text("numpy==2.4.1\n")
    assert requirements_digest(first) == requirements_digest(second) != requirements_digest(third)
    assert requirements_digest(tmp_path / "absent") is None


def test_environment_is_the_requirement_file_with_the_most_installed_packages(tmp_path: Path) -> None:
    run, gpu = tmp_path / "run.txt", tmp_path / "gpu.txt"
    assert describe_environment(tmp_path) is None
    run.write_text(f"numpy=={version('numpy')} \\\n    --hash=sha256:00\nabsent-package==1.0\n")
    gpu.write_text(f"numpy=={version('numpy')}\nabsent-package==1.0\nanother-absent-package==1.0\n")
    assert describe_environment(tmp_path) == f"run.txt sha256:{requirements_digest(run)}"
    gpu.write_text(f"numpy=={version('numpy')}\npytest[dev]=={version('pytest')} ; python_version >= '3'\n")
    assert describe_environment(tmp_path) == f"gpu.txt sha256:{requirements_digest(gpu)}"


def test_requirement_files_of_the_checkout_take_precedence_over_those_of_the_image(tmp_path: Path) -> None:
    root, image = tmp_path / "root", tmp_path / "image"
    for folder, name in ((image, "pytest"), (root, "numpy")):
        assert current_provenance(root, image)["environment"] == (None if name == "pytest" else _environment_of(image))
        (folder / "requirements").mkdir(parents=True)
        (folder / "requirements" / "run.txt").write_text(f"{name}=={version(name)}\n")
    assert current_provenance(root, image)["environment"] == _environment_of(root) != _environment_of(image)
    assert Path("/opt/cxr") == CONTAINER_IMAGE_FOLDER, "components/Dockerfile copies them there"


def _environment_of(folder: Path) -> str | None:
    return describe_environment(folder / "requirements")


def test_packages_with_other_versions_than_pinned_are_named(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text(f"numpy==0.1\npytest=={version('pytest')}\npytest==0.1\n")
    assert str(describe_environment(tmp_path)).endswith(f", but 1 packages differ: numpy {version('numpy')}")


def test_pipeline_run_and_image_come_from_environment_variables(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_container = current_provenance(checkout)
    assert without_container == {
        "git_commit": git_commit(checkout), "environment": None, "pipeline_run": None, "image_digest": None
    }  # fmt: skip
    monkeypatch.setenv("CXR_PIPELINE_RUN", "run-7")
    monkeypatch.setenv("CXR_IMAGE_DIGEST", "sha256:12")
    assert current_provenance(checkout) == {**without_container, "pipeline_run": "run-7", "image_digest": "sha256:12"}


def test_folder_hash_equals_that_of_dvc(tmp_path: Path) -> None:
    from dvc.repo import Repo

    with Repo.init(str(tmp_path), no_scm=True) as repo:
        (tmp_path / "folder" / "b").mkdir(parents=True)
        (tmp_path / "folder" / "b" / "x").write_text("content")
        for number in range(5):
            (tmp_path / "folder" / f"b.{number}").write_text(str(number))
        repo.add([str(tmp_path / "folder")])
    assert folder_md5(tmp_path / "folder") == data_md5(tmp_path / "folder.dvc")


def test_stage_is_named_only_if_its_output_matches_the_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, lock = Path("artifacts/m"), Path("dvc.lock")
    folder.mkdir(parents=True)
    (folder / "weights").write_text("first")
    assert dvc_stage(lock, folder) is None
    lock.write_text(
        f"stages:\n  other: {{cmd: x}}\n  train@m: {{outs: [{{path: {folder}, md5: {folder_md5(folder)}}}]}}\n"
    )
    assert dvc_stage(lock, folder) == "train@m"
    assert dvc_stage(lock, Path("artifacts")) is None
    (folder / "weights").write_text("second")
    assert dvc_stage(lock, folder) is None
    lock.write_text("stages: [")
    assert dvc_stage(lock, folder) is None

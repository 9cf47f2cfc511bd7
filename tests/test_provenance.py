from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cxr.provenance import data_md5, environment_digest, git_commit


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "code.py").write_text("one\n")
    (tmp_path / "params.yaml").write_text("one\n")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    (checkout / "untracked.txt").write_text("not part of the code\n")
    commit = git_commit(checkout)
    assert commit is not None and len(commit) == 40


def test_changed_code_makes_the_commit_dirty(checkout: Path) -> None:
    clean = git_commit(checkout)
    (checkout / "src" / "code.py").write_text("two\n")
    assert git_commit(checkout) == f"{clean}-dirty"


def test_changed_values_leave_the_commit_as_it_is_for_they_are_recorded_themselves(checkout: Path) -> None:
    clean = git_commit(checkout)
    (checkout / "params.yaml").write_text("two\n")
    assert git_commit(checkout) == clean


def test_no_checkout_and_no_commit_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q"], check=True)
    assert git_commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None


def test_the_data_hash_is_that_of_the_pointer(tmp_path: Path) -> None:
    pointer = tmp_path / "data.dvc"
    pointer.write_text("outs:\n- md5: 0123abcd.dir\n  size: 5\n  path: data\n")
    assert data_md5(pointer) == "0123abcd.dir"


@pytest.mark.parametrize("text", ["", "outs: []", "outs:\n- path: data\n", "a: [", "- 1"])
def test_a_pointer_without_a_hash_is_unknown(tmp_path: Path, text: str) -> None:
    pointer = tmp_path / "data.dvc"
    pointer.write_text(text)
    assert data_md5(pointer) is None
    assert data_md5(tmp_path / "absent.dvc") is None


def test_the_environment_digest_follows_the_pins_alone(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    first.write_text("numpy==2.4.0\n")
    second.write_text("# a comment\n\n  numpy==2.4.0\n")
    third.write_text("numpy==2.4.1\n")
    assert environment_digest(first) == environment_digest(second) != environment_digest(third)
    assert environment_digest(tmp_path / "absent") is None

"""Files that a killed DVC has cut off are put back; whole files, and those of a running DVC, are not touched."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.errors import DataError
from cxr.lineage.dvc_recovery import COPIES, recover
from support.dvc_locks import cut_off

LENGTH = 12_000
HOLD = "import sys, zc.lockfile; lock = zc.lockfile.LockFile(sys.argv[1]); print(flush=True); sys.stdin.read()"


@pytest.fixture
def whole(repository: Path) -> bytes:
    """The first stages of the project's own lock: DVC takes half a second to read all of it."""
    lock = (repository / "dvc.lock").read_bytes()
    stages = [match.start() for match in re.finditer(rb"^  \S", lock, re.MULTILINE)]
    return lock[: next(start for start in stages if start > LENGTH)]


@pytest.fixture
def project(tmp_path: Path, whole: bytes) -> Path:
    """A project with two graphs, whose locks were whole at the last look."""
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / "transfer").mkdir()
    for name in ("dvc.lock", "transfer/dvc.lock"):
        (tmp_path / name).write_bytes(whole)
    recover(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["dvc.lock", "transfer/dvc.lock"])
def test_a_lock_that_is_cut_off_anywhere_inside_of_a_line_is_put_back(project: Path, whole: bytes, name: str) -> None:
    for length in (0, 1, 8192, 9000, len(whole) // 2, len(whole) - 1):
        while whole[:length].endswith(b"\n"):  # DVC reads a lock that ends between two lines, and runs the other stages
            length += 1
        (project / name).write_bytes(whole[:length])
        recover(project)
        assert (project / name).read_bytes() == whole, length
        assert (project / COPIES / f"{name}.cut-off").read_bytes() == whole[:length]


def test_a_whole_lock_stays_and_becomes_the_copy(project: Path, whole: bytes) -> None:
    changed = whole.replace(b"cxr resplit", b"cxr split")
    assert changed != whole
    (project / "dvc.lock").write_bytes(changed)
    recover(project)
    assert (project / "dvc.lock").read_bytes() == (project / COPIES / "dvc.lock").read_bytes() == changed


def test_the_lock_of_the_last_commit_is_the_second_choice(project: Path, whole: bytes) -> None:
    git = ["git", "-C", str(project), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-q", "-m", "lock"]):
        subprocess.run([*git, *command], check=True)
    (project / COPIES / "dvc.lock").write_bytes(whole[:100])
    (project / "dvc.lock").write_bytes(cut_off(whole))
    recover(project)
    assert (project / "dvc.lock").read_bytes() == whole


def test_without_a_whole_lock_two_commands_are_named(project: Path, whole: bytes) -> None:
    (project / COPIES / "dvc.lock").unlink()
    (project / "dvc.lock").write_bytes(cut_off(whole))
    with pytest.raises(DataError, match=r"run `rm dvc\.lock` and then `dvc repro`"):
        recover(project)
    assert (project / "dvc.lock").read_bytes() == cut_off(whole)


def test_a_conflict_of_a_merge_is_left_to_the_person(project: Path, whole: bytes) -> None:
    conflict = b"<<<<<<< HEAD\n" + whole + b"=======\n>>>>>>> other\n"
    (project / "dvc.lock").write_bytes(conflict)
    recover(project)
    assert (project / "dvc.lock").read_bytes() == conflict


@pytest.mark.parametrize("name", ["lock", "rwlock.lock"])
def test_nothing_is_touched_while_dvc_writes(
    project: Path, whole: bytes, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rwlock = project / ".dvc" / "tmp" / "rwlock"
    rwlock.write_bytes(b"")
    (project / "dvc.lock").write_bytes(cut_off(whole))
    command = [sys.executable, "-c", HOLD, str(rwlock.with_name(name))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        recover(project)
        assert (project / "dvc.lock").read_bytes() == cut_off(whole) and rwlock.exists()
        assert "another dvc is running" in caplog.text
        holder.communicate()
    recover(project)
    assert (project / "dvc.lock").read_bytes() == whole and not rwlock.exists()


@pytest.mark.parametrize("text", ["", '{"read": {"/pro', json.dumps({"read": {}})])
def test_only_a_broken_rwlock_is_removed(project: Path, text: str) -> None:
    rwlock = project / ".dvc" / "tmp" / "rwlock"
    rwlock.write_text(text)
    recover(project)
    assert rwlock.exists() == text.endswith("}")

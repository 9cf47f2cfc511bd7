"""``make repro`` and ``make run`` put back what a kill of ``dvc`` has cut off, before they call it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cxr.lineage.dvc_recovery import COPIES
from support.dvc_locks import cut_off
from support.make_checkout import make, write_checkout
from support.sweeps import exhaustive

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A finished project whose ``dvc`` writes down what it gets to read, and changes a comment of its lock."""
    dvc = 'test "$1" = repro || exit 0\ncat dvc.lock > seen.lock\nls .dvc/tmp > seen\necho "# run" >> dvc.lock'
    folder = write_checkout(tmp_path / "mein Röntgen-Projekt", repository, dvc)
    (folder / ".dvc" / "tmp").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data" / "dataset.json").write_text("{}")
    shutil.copyfile(repository / "dvc.lock", folder / "dvc.lock")
    return folder


@pytest.mark.parametrize("target", ["repro", "run"])
def test_the_lock_is_looked_after_before_and_after_dvc(checkout: Path, target: str) -> None:
    process = make(checkout, "--dry-run", target)
    assert process.returncode == 0, process.stderr
    commands = [line for line in process.stdout.splitlines() if "dvc_recovery" in line or line.endswith("dvc repro")]
    recovery = "python -m cxr.lineage.dvc_recovery"
    assert commands == [recovery, "python -m cxr.cli.fork_server dvc repro", recovery]


@pytest.mark.parametrize("target", ["repro", *exhaustive("run")])  # the test above compares their steps
def test_the_lock_of_the_last_success_is_put_back(checkout: Path, target: str) -> None:
    process = make(checkout, target)
    assert process.returncode == 0, process.stderr
    whole = (checkout / "dvc.lock").read_bytes()
    assert (checkout / COPIES / "dvc.lock").read_bytes() == whole
    (checkout / "dvc.lock").write_bytes(cut_off(whole))
    (checkout / ".dvc" / "tmp" / "rwlock").write_bytes(b"")
    process = make(checkout, target)
    assert process.returncode == 0, process.stderr
    assert "dvc.lock was cut off" in process.stderr and "rwlock was cut off" in process.stderr
    assert (checkout / "seen.lock").read_bytes() == whole, "dvc reads the whole lock"
    assert "rwlock" not in (checkout / "seen").read_text().split()
    assert (checkout / COPIES / "dvc.lock.cut-off").read_bytes() == cut_off(whole)


def test_dvc_does_not_run_where_nothing_whole_is_left(checkout: Path) -> None:
    remains = cut_off((checkout / "dvc.lock").read_bytes())
    (checkout / "dvc.lock").write_bytes(remains)
    process = make(checkout, "repro")
    assert process.returncode != 0
    assert "run `rm dvc.lock` and then `dvc repro`" in process.stderr and "Traceback" not in process.stderr
    assert not (checkout / "seen.lock").exists()
    assert (checkout / "dvc.lock").read_bytes() == remains

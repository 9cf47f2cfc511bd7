"""Files and folders are whole or not there, and what killed processes left behind is removed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr.cli.main import main
from cxr.files import remove_leftovers, scratch_folder, whole_file, whole_folder


@pytest.fixture
def dead_process() -> int:
    """Number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture
def zombie() -> Iterator[int]:
    """Number of a process that has ended, and whose parent does not ask for it."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the state of another process")
def test_leftovers_of_a_zombie_are_removed(zombie: int, tmp_path: Path) -> None:
    (tmp_path / f".data.partial-{zombie}").mkdir()
    remove_leftovers(tmp_path / "data")
    assert hidden(tmp_path) == []


def test_leftovers_of_a_running_process_stay(tmp_path: Path) -> None:
    names = [f".data.partial-{os.getpid()}", f".table.partial-{os.getpid()}1x.csv", ".table.partial-x.csv"]
    for name in names:
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path / "data")
    with whole_file(tmp_path / "table.csv") as partial:
        partial.write_text("a")
    assert hidden(tmp_path) == sorted(names)


def test_an_old_output_comes_back_if_its_replacement_was_cut_off(dead_process: int, tmp_path: Path) -> None:
    (tmp_path / f".data.old-{dead_process}").mkdir()
    (tmp_path / f".data.old-{dead_process}" / "x").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "data"):
        raise ZeroDivisionError
    assert (tmp_path / "data" / "x").read_text() == "old" and hidden(tmp_path) == []


def test_a_partial_file_of_a_killed_process_is_removed_by_the_next_write(dead_process: int, tmp_path: Path) -> None:
    (tmp_path / f".table.partial-{dead_process}.csv").write_text("half")
    (tmp_path / f".other.partial-{dead_process}.csv").write_text("half")
    with whole_file(tmp_path / "table.csv") as partial:
        partial.write_text("a")
    assert hidden(tmp_path) == [f".other.partial-{dead_process}.csv"]


def test_scratch_folders_of_killed_processes_are_removed(
    dead_process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (f"cxr-{dead_process}-abc", f"cxr-{os.getppid()}-abc", "cxr-metrics-abc", f"other-{dead_process}-abc"):
        (tmp_path / name).mkdir()
    with scratch_folder() as folder:
        assert folder.parent == tmp_path and folder.is_dir()
        assert not (tmp_path / f"cxr-{dead_process}-abc").exists()
    remaining = {f"cxr-{os.getppid()}-abc", "cxr-metrics-abc", f"other-{dead_process}-abc"}
    assert {path.name for path in tmp_path.iterdir()} == remaining


def test_fetch_removes_leftovers_also_when_the_data_are_there_already(dead_process: int, tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ["fetch", "--source", "phantom", "--phantom_images", "20", "--data", str(data)]
    arguments += ["--downloads", str(tmp_path / "downloads")]
    assert main(arguments) == 0
    (tmp_path / f".data.partial-{dead_process}").mkdir()
    assert main(arguments) == 0
    assert hidden(tmp_path) == []

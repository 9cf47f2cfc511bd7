"""Steps and make where little is at hand: no home folder, no name, a dead proxy, a strict umask, an odd path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.loopback import free_port

DATA_STEPS = """
import sys
from cxr.cli.main import main

if __name__ == "__main__":
    for arguments in (
        "fetch --source phantom --phantom_images 30 --data data",
        "validate --data data --manifest manifest --report report",
        "resplit --manifest manifest --splits splits",
    ):
        if status := main(arguments.split()):
            sys.exit(status)
"""
"""In one process, which imports the packages once."""


@pytest.fixture
def bare_environment(tmp_path: Path) -> dict[str, str]:
    """Variables of an account without a home folder: one below a file can be created by nobody, not even by root."""
    (tmp_path / "file").touch()
    proxy = f"http://127.0.0.1:{free_port()}"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "file" / "home"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy),
    }


def test_the_data_steps_run(tmp_path: Path, bare_environment: dict[str, str]) -> None:
    folder = tmp_path / "mein Röntgen-Projekt"
    folder.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", DATA_STEPS],
        cwd=folder, env=bare_environment, umask=0o077, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / "splits" / "splits.parquet" in files
    assert all(path.stat().st_mode & 0o077 == 0 for path in files), "the umask of the user decides who may read"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"XDG_CACHE_HOME": "{folder}/.cache", "KERAS_HOME": "{folder}/.cache/keras", "HOME": "{home}"}),
        ({"XDG_CACHE_HOME": "/a b"}, {"XDG_CACHE_HOME": "/a b", "MPLCONFIGDIR": "/a b/matplotlib"}),
        ({"HOME": ""}, {"HOME": "{folder}/.cache", "MPLCONFIGDIR": "{folder}/.cache/matplotlib"}),
        ({"HOME": "{folder}"}, {"HOME": "{folder}", "XDG_CACHE_HOME": None, "MPLCONFIGDIR": None}),
        ({"LOGNAME": "reader"}, {"LOGNAME": "reader", "USER": None}),
    ],
)
def test_make_gives_caches_a_place_only_where_the_home_folder_has_none(
    repository: Path,
    tmp_path: Path,
    bare_environment: dict[str, str],
    changes: dict[str, str],
    expected: dict[str, str | None],
) -> None:
    folder = tmp_path / "mein Röntgen-Projekt"
    folder.mkdir()
    shutil.copyfile(repository / "Makefile", folder / "Makefile")
    (folder / "show.mk").write_text("include Makefile\nshow:\n\t@env\n")
    places = {"folder": str(folder), "home": bare_environment["HOME"]}
    environment = bare_environment | {name: value.format(**places) for name, value in changes.items()}
    result = subprocess.run(
        ["make", "--file", "show.mk", "show"], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    variables = dict(line.partition("=")[::2] for line in result.stdout.splitlines())
    for name, value in expected.items():
        assert variables.get(name) == (value and value.format(**places)), name
    assert variables.get("LOGNAME") or variables["USER"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("place", "stays"), [("here", True), ("link", True), ("elsewhere", False), ("gone", False)])
def test_a_moved_or_copied_project_gets_its_own_virtual_environment(
    repository: Path, tmp_path: Path, place: str, stays: bool
) -> None:
    project = tmp_path / "mein $PROJEKT"
    (project / ".venv").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(project)
    shutil.copy(repository / "Makefile", project)
    (project / ".venv" / "place").write_text(f"{project if place == 'here' else tmp_path / place}\n")
    result = subprocess.run(["make", "help"], cwd=project, capture_output=True, text=True, check=True)
    assert (project / ".venv").exists() == stays
    assert ("moved or copied" in result.stdout) != stays

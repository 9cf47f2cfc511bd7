"""``make run DATA=...`` passes an address to ``cxr fetch`` exactly as it was typed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import bad_images

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A folder with the Makefile, an installed ``cxr`` and a ``dvc`` that does nothing."""
    folder = tmp_path / "mein Röntgen-Projekt"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "params.yaml"):
        shutil.copyfile(repository / name, folder / name)
    (folder / ".venv" / "bin" / "cxr").symlink_to(Path(sys.executable).with_name("cxr"))
    (folder / ".venv" / "bin" / "dvc").symlink_to(shutil.which("true") or "/bin/true")
    return folder


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("my images/set", "{folder}"),
        ('it\'s "new"', "{folder}/"),
        ("$HOME $(shell touch x) `y`", "{folder}"),
        ("Röntgen#1;& a\\b", "../{name}"),
    ],
)
def test_a_folder_with_any_name_is_fetched(checkout: Path, name: str, place: str) -> None:
    folder = checkout.parent / name
    for number, label in enumerate(("NORMAL", "PNEUMONIA")):
        (folder / label).mkdir(parents=True)
        bad_images.sound(folder / label / "a.jpeg", number)
    address = place.format(folder=folder, name=name)
    environment = {key: value for key, value in os.environ.items() if key not in ("DATA", "MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--assume-old=.venv/run.stamp", "run", f"DATA={address}"]
    process = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    card = json.loads((checkout / "data" / "dataset.json").read_text())
    assert (card["source"], card["images"]) == (folder.name, 2)
    assert not (checkout / "x").exists(), "make runs nothing that stands in the address"

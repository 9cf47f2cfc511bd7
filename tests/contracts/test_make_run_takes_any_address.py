"""``make run DATA=...`` passes an address to ``cxr fetch`` exactly as it was typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support import bad_images
from support.make_checkout import make, write_checkout

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A folder with the Makefile, an installed ``cxr`` and a ``dvc`` that does nothing."""
    return write_checkout(tmp_path / "mein Röntgen-Projekt", repository)


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
    process = make(checkout, "run", f"DATA={address}")
    assert process.returncode == 0, process.stderr
    card = json.loads((checkout / "data" / "dataset.json").read_text())
    assert (card["source"], card["images"]) == (folder.name, 2)
    assert not (checkout / "x").exists(), "make runs nothing that stands in the address"

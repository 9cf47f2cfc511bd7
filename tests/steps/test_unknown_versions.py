"""Every command about a version ends with exit status 2 where the store has no such version or alias."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr.cli.main import main
from cxr.tracking.store import Store
from support.model_folders import write_images, write_store
from support.outside_images import draw_chests, write_class_folders
from support.signing_keys import write_keys

NAME, DETECTOR = "pneumonia-classifier", "pneumonia-regions"
BY_ALIAS_OR_NUMBER = {
    "predict": ("--images", "images", "--output", "rows.csv"),
    "predict --regions": ("--regions", "true", "--images", "images", "--output", "boxes.csv"),
    "judge": ("--data", "ward", "--judgement", "output"),
    "drift": ("--log", "log", "--report", "output"),
    "export": ("--images", "images", "--splits", "splits", "--output", "output"),
    "serve": ("--port", "0", "--workers", "1"),
}
BY_VERSION = {
    "lineage": (),
    "reproduce": ("--folder", "output"),
    "sbom": (),
    "sign": ("--signing_key", "key.pem"),
    "approve": ("--reason", "seen"),
}
ABSENT = [
    *((command, ("--alias", "nobody")) for command in BY_ALIAS_OR_NUMBER),
    *((command, ("--version", "99")) for command in BY_ALIAS_OR_NUMBER if command != "serve"),
    *((command, (version,)) for command in BY_VERSION for version in ("nobody", "99")),
    *((command, ("--registered_name", "others")) for command in (*BY_VERSION, "judge", "champion", "rollback")),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two registered models and a version that nobody has given an alias, and what the commands read."""
    root = tmp_path_factory.mktemp("unknown")
    client = Store(write_store(root)).connect()
    for name in (NAME, DETECTOR):
        client.create_registered_model(name)
        client.create_model_version(name, source=str(root / "files"))
    write_images(root / "images", 2)
    write_class_folders(root / "ward", draw_chests(2))
    write_keys(root, "key")
    for name in ("log", "splits"):
        (root / name).mkdir()
    return root


@pytest.mark.parametrize(
    ("command", "absent"), ABSENT, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_version_that_is_not_there_is_a_mistake_of_the_user(
    command: str,
    absent: tuple[str, ...],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    arguments = {**BY_ALIAS_OR_NUMBER, **BY_VERSION}.get(command, ())
    words = [*command.split()[:1], *absent, *arguments]
    if absent[0] == "--registered_name" and command in BY_VERSION:
        words.insert(1, "1")
    assert main([*words, "--tracking_uri", f"sqlite:///{place}/mlflow.db"]) == 2
    message = capsys.readouterr().err
    assert "expected a" in message and absent[-1] in message
    assert sorted(place.iterdir()) == before, "nothing is written"

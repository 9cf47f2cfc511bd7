"""A registered version whose files changed in the store is refused, never served, and registered again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow.pyfunc
import pytest
from mlflow.entities.model_registry import ModelVersion

from cxr.errors import DamagedVersionError, DataError, RegistryError
from cxr.serving.model_source import load_version
from cxr.tracking.registry_reader import DIGESTS, fetch_model, missing_files
from cxr.tracking.store import Store
from support.model_folders import ModelFolders, write_models
from support.registrations import begin, ensure

NAME = "damaged"


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    return write_models(tmp_path / "project")


@pytest.fixture
def version(store: Store, folders: ModelFolders) -> ModelVersion:
    """A version of a local store."""
    created, _ = ensure(folders, store, NAME, begin(folders, store, NAME))
    return created


def stored_file(version: ModelVersion, name: str) -> Path:
    """A file of the version, where the local store keeps it."""
    return Path(version.source.removeprefix("file://")) / "artifacts" / "artifact" / name


def change_threshold(version: ModelVersion) -> None:
    card = stored_file(version, "card.json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "threshold": 0.99}, indent=2))


def test_a_changed_threshold_is_refused_everywhere(
    store: Store, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_threshold(version)
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading puts the version's own code on it
    with pytest.raises(DamagedVersionError, match=r"received damaged or changed files \(card\.json\); restore"):
        fetch_model(store, version, tmp_path / "copy")
    with pytest.raises(RegistryError, match=r"as it was registered, received .*card\.json"):
        load_version(store, NAME, str(version.version), "champion", preferred_alias="champion")
    with pytest.raises(DataError, match=r"damaged or changed .*card\.json"):
        mlflow.pyfunc.load_model(version.source)


def test_a_damaged_network_is_refused_in_one_sentence(store: Store, version: ModelVersion) -> None:
    network = stored_file(version, "model.keras")
    network.write_bytes(network.read_bytes()[:-100])
    with pytest.raises(RegistryError, match=r"damaged or changed files \(model\.keras\); restore them from a copy"):
        load_version(store, NAME, str(version.version), "champion", preferred_alias="champion")


def test_digests_that_were_changed_with_the_card_are_refused(
    store: Store, version: ModelVersion, tmp_path: Path
) -> None:
    from cxr.models.stored_files import record_digests

    change_threshold(version)
    record_digests(stored_file(version, "card.json").parent)
    with pytest.raises(DamagedVersionError, match=r"\(digests\.json\)"):
        fetch_model(store, version, tmp_path / "copy")
    stored_file(version, "digests.json").unlink()
    assert missing_files(store, version) == ("digests.json",)


def test_a_version_with_a_changed_card_is_registered_again(
    store: Store, version: ModelVersion, folders: ModelFolders
) -> None:
    change_threshold(version)
    assert missing_files(store, version) == ("card.json",)
    again, is_new = ensure(folders, store, NAME, str(version.run_id))
    assert (is_new, str(again.version)) == (True, "2")
    assert missing_files(store, again) == ()


def test_a_version_of_an_earlier_program_is_read_without_digests(
    store: Store, version: ModelVersion, tmp_path: Path
) -> None:
    store.client.delete_model_version_tag(NAME, version.version, DIGESTS)
    stored_file(version, "digests.json").unlink()
    old = store.client.get_model_version(NAME, version.version)
    assert missing_files(store, old) == ()
    assert (fetch_model(store, old, tmp_path / "copy") / "card.json").is_file()

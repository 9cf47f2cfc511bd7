"""Another version takes over only when it is complete and predicts; until then the old version answers."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cxr.errors import MissingInputError, RegistryError
from cxr.serving.model_provider import FIRST_RETRY_SECONDS
from cxr.serving.served_model import PHANTOM_BANNER, ServedModel
from cxr.tracking.registry_reader import DIGESTS
from cxr.tracking.store import Store
from support.model_folders import small_network, write_store
from support.rest_service import champion_provider
from support.tracking_server import register_versions

if TYPE_CHECKING:
    from conftest import Registry


def predict(served: ServedModel, images: list[Path]) -> list[float]:
    return [prediction.probability for prediction in served.predictor.predict(images)]


def test_the_champion_predicts_as_its_evaluation_and_so_does_its_successor_after_a_reload(registry: Registry) -> None:
    provider = champion_provider(registry.uri, registry.name)
    first, images = provider.current, registry.images
    assert predict(first, images) == pytest.approx(registry.expected_probabilities("1"), abs=1e-6)
    assert not provider.reload(), "nothing has changed"
    registry.set_alias("champion", "2")
    assert provider.reload()
    assert provider.current.version == "2"
    assert predict(provider.current, images) == pytest.approx(registry.expected_probabilities("2"), abs=1e-6)
    assert predict(provider.current, images) != pytest.approx(registry.expected_probabilities("1"), abs=1e-3)
    assert predict(first, images) == pytest.approx(registry.expected_probabilities("1"), abs=1e-6), "running request"


def test_no_request_mixes_two_versions_while_they_are_exchanged(registry: Registry) -> None:
    provider = champion_provider(registry.uri, registry.name)
    expected = {version: registry.expected_probabilities(version) for version in ("1", "2")}
    results: list[tuple[str, list[float]]] = []
    finished = threading.Event()

    def predict_repeatedly() -> None:
        while not finished.is_set():
            served = provider.current
            results.append((served.version, predict(served, registry.images)))

    threads = [threading.Thread(target=predict_repeatedly) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in ("2", "1", "2"):
        registry.set_alias("champion", version)
        provider.reload()
    finished.set()
    for thread in threads:
        thread.join()
    assert {version for version, _ in results} == {"1", "2"}
    for version, probabilities in results:
        assert probabilities == pytest.approx(expected[version], abs=1e-6)


def test_a_version_without_its_files_is_reported_once_and_retried_later(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    provider = champion_provider(registry.uri, registry.name, clock=lambda: now[0])
    caplog.clear()
    network = registry.files("2") / "model.keras"
    shutil.move(network, tmp_path / "moved.keras")
    registry.set_alias("champion", "2")
    with caplog.at_level(logging.WARNING, "cxr"):
        for _ in range(5):
            assert not provider.follow({"champion": "2"})
        assert not provider.reload()
    assert provider.current.version == "1"
    expected = registry.expected_probabilities("1")
    assert predict(provider.current, registry.images) == pytest.approx(expected, abs=1e-6)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "version 2" in warnings[0] and "model.keras" in warnings[0], warnings
    assert provider.problem is not None and "model.keras" in provider.problem
    shutil.move(tmp_path / "moved.keras", network)
    assert not provider.follow({"champion": "2"}), "it is too early to retry"
    now[0] += 2 * FIRST_RETRY_SECONDS + 1  # the second attempt, by reload, has doubled the delay
    assert provider.follow({"champion": "2"})
    assert provider.current.version == "2"
    assert provider.problem is None


@pytest.mark.parametrize("damage", ["truncated", "not a number"])
def test_a_version_that_cannot_predict_never_takes_over(registry: Registry, damage: str) -> None:
    network = registry.files("2") / "model.keras"
    # A version of an earlier program has no digests, which would show the damage before it is loaded.
    network.with_name("digests.json").unlink()
    Store(registry.uri).client.delete_model_version_tag(registry.name, "2", DIGESTS)
    if damage == "truncated":
        network.write_bytes(network.read_bytes()[:2000])
    else:
        broken = small_network(1)
        broken.layers[-1].set_weights([np.full_like(weights, np.nan) for weights in broken.layers[-1].get_weights()])
        broken.save(network)
    provider = champion_provider(registry.uri, registry.name)
    registry.set_alias("champion", "2")
    assert not provider.reload()
    assert provider.current.version == "1"
    assert provider.problem is not None and "version 2" in provider.problem
    registry.set_alias("champion", "1")
    assert not provider.reload()
    assert provider.problem is None


def test_without_a_champion_there_is_an_error_or_the_fallback_with_a_banner(registry: Registry) -> None:
    registry.set_alias("champion", None)
    registry.set_alias("challenger", "2")
    with pytest.raises(RegistryError, match=r"alias champion, received aliases=\{'challenger': '2'\}"):
        champion_provider(registry.uri, registry.name)
    provider = champion_provider(registry.uri, registry.name, fallback="challenger")
    assert (provider.current.version, provider.current.alias) == ("2", "challenger")
    assert provider.current.banner is not None and "version 2, the challenger" in provider.current.banner
    predictor = provider.current.predictor
    registry.set_alias("champion", "2")
    provider.reload()
    assert (provider.current.version, provider.current.alias, provider.current.banner) == ("2", "champion", None)
    assert provider.current.predictor is predictor, "the same version is not loaded twice"


def test_the_challenger_does_not_replace_a_champion_whose_alias_was_removed(registry: Registry) -> None:
    registry.set_alias("challenger", "2")
    provider = champion_provider(registry.uri, registry.name, fallback="challenger")
    registry.set_alias("champion", None)
    assert not provider.reload()
    assert (provider.current.version, provider.current.alias) == ("1", "champion")
    assert provider.problem == "nobody has the alias champion: version 1 goes on"


def test_an_unregistered_model_is_an_error_with_advice(uri: str) -> None:
    with pytest.raises(RegistryError, match="run `cxr register`"):
        champion_provider(uri, "nobody")


def test_a_missing_local_store_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="name another store"):
        champion_provider(f"sqlite:///{tmp_path}/mlflow.db", "pneumonia-classifier")
    assert not list(tmp_path.iterdir())


def test_a_version_trained_on_phantoms_has_a_banner(tmp_path: Path) -> None:
    uri = write_store(tmp_path)
    phantoms = {"name": "phantom", "kind": "phantom"}
    register_versions(tmp_path / "run", uri, models=("three_block",), dataset=phantoms)
    Store(uri).client.set_registered_model_alias("pneumonia-classifier", "champion", "1")
    assert champion_provider(uri, "pneumonia-classifier").current.banner == PHANTOM_BANNER

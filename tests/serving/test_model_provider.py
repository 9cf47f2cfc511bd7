"""Another version takes over only when it is whole and answers; until then the old one goes on."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cxr.errors import MissingInputError, RegistryError
from cxr.serving.model_provider import FIRST_DELAY, PHANTOM_BANNER, Served, ServedAlias
from support.model_folders import small_network, write_store
from support.tracking_server import register_versions

if TYPE_CHECKING:
    from conftest import Registry


def answers(served: Served, images: list[Path]) -> list[float]:
    return [one.probability for one in served.predictor.predict(images)]


def test_the_champion_answers_as_its_evaluation_did_and_its_successor_after_a_reload(registry: Registry) -> None:
    served = ServedAlias(registry.uri, registry.name)
    before = served.current
    assert answers(before, registry.images) == pytest.approx(registry.expected("1"), abs=1e-6)
    assert not served.reload(), "nothing has changed"
    registry.give("champion", "2")
    assert served.reload()
    assert served.current.version == "2"
    assert answers(served.current, registry.images) == pytest.approx(registry.expected("2"), abs=1e-6)
    assert answers(served.current, registry.images) != pytest.approx(registry.expected("1"), abs=1e-3)
    assert answers(before, registry.images) == pytest.approx(registry.expected("1"), abs=1e-6), "a request in flight"


def test_requests_go_on_while_versions_are_exchanged_and_none_mixes_two(registry: Registry) -> None:
    served = ServedAlias(registry.uri, registry.name)
    expected = {version: registry.expected(version) for version in ("1", "2")}
    seen: list[tuple[str, list[float]]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            taken = served.current
            seen.append((taken.version, answers(taken, registry.images)))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in ("2", "1", "2"):
        registry.give("champion", version)
        served.reload()
    done.set()
    for thread in threads:
        thread.join()
    assert {version for version, _ in seen} == {"1", "2"}
    for version, given in seen:
        assert given == pytest.approx(expected[version], abs=1e-6)


def test_a_version_whose_files_are_gone_is_told_once_and_tried_again_later(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    served = ServedAlias(registry.uri, registry.name, clock=lambda: now[0])
    caplog.clear()
    network = registry.files("2") / "model.keras"
    shutil.move(network, tmp_path / "kept.keras")
    registry.give("champion", "2")
    with caplog.at_level(logging.WARNING, "cxr"):
        for _ in range(5):
            assert not served.follow({"champion": "2"})
        assert not served.reload()
    assert served.current.version == "1"
    assert answers(served.current, registry.images) == pytest.approx(registry.expected("1"), abs=1e-6)
    told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1 and "version 2" in told[0] and "model.keras" in told[0], told
    assert served.problem is not None and "model.keras" in served.problem
    shutil.move(tmp_path / "kept.keras", network)
    assert not served.follow({"champion": "2"}), "not before its time"
    now[0] += 2 * FIRST_DELAY + 1  # the second attempt, by reload, has doubled the delay
    assert served.follow({"champion": "2"})
    assert served.current.version == "2"
    assert served.problem is None


@pytest.mark.parametrize("damage", ["cut", "not a number"])
def test_a_version_that_cannot_answer_never_takes_over(registry: Registry, damage: str) -> None:
    network = registry.files("2") / "model.keras"
    if damage == "cut":
        network.write_bytes(network.read_bytes()[:2000])
    else:
        broken = small_network(1)
        broken.layers[-1].set_weights([np.full_like(one, np.nan) for one in broken.layers[-1].get_weights()])
        broken.save(network)
    served = ServedAlias(registry.uri, registry.name)
    registry.give("champion", "2")
    assert not served.reload()
    assert served.current.version == "1"
    assert served.problem is not None and "version 2" in served.problem
    registry.give("champion", "1")
    assert not served.reload()
    assert served.problem is None


def test_without_a_champion_there_is_an_error_or_if_asked_the_challenger_with_a_banner(registry: Registry) -> None:
    registry.give("champion", None)
    registry.give("challenger", "2")
    with pytest.raises(RegistryError, match=r"alias champion, received aliases=\{'challenger': '2'\}"):
        ServedAlias(registry.uri, registry.name)
    served = ServedAlias(registry.uri, registry.name, fallback="challenger")
    assert (served.current.version, served.current.alias) == ("2", "challenger")
    assert served.current.banner is not None and "version 2, the challenger" in served.current.banner
    loaded = served.current.predictor
    registry.give("champion", "2")
    served.reload()
    assert (served.current.version, served.current.alias, served.current.banner) == ("2", "champion", None)
    assert served.current.predictor is loaded, "the same version is not loaded twice"


def test_a_champion_that_was_taken_away_is_not_followed_by_the_challenger(registry: Registry) -> None:
    registry.give("challenger", "2")
    served = ServedAlias(registry.uri, registry.name, fallback="challenger")
    registry.give("champion", None)
    assert not served.reload()
    assert (served.current.version, served.current.alias) == ("1", "champion")
    assert served.problem == "nobody has the alias champion: version 1 goes on"


def test_a_model_that_nobody_has_registered_is_a_clear_error(uri: str) -> None:
    with pytest.raises(RegistryError, match="run `cxr register`"):
        ServedAlias(uri, "nobody")


def test_a_local_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="name another store"):
        ServedAlias(f"sqlite:///{tmp_path}/mlflow.db", "pneumonia-classifier")
    assert not list(tmp_path.iterdir())


def test_a_version_trained_on_phantoms_says_so(tmp_path: Path) -> None:
    from cxr.tracking.connection import client

    uri = write_store(tmp_path)
    phantoms = {"name": "phantom", "kind": "phantom"}
    register_versions(tmp_path / "run", uri, models=("three_block",), dataset=phantoms)
    client(uri).set_registered_model_alias("pneumonia-classifier", "champion", "1")
    assert ServedAlias(uri, "pneumonia-classifier").current.banner == PHANTOM_BANNER

"""`runtime=onnx`: a version answers in ONNX Runtime as in Keras, is converted once, and is refused if it cannot be."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import pytest

from cxr.cli.main import main
from cxr.errors import DataError
from cxr.fast_import import packages_hidden
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.serving.onnx_loading import onnx_loader
from cxr.serving.shadow_provider import AliasShadowProvider
from cxr.tracking.registry_reader import DIGESTS
from cxr.tracking.store import Store
from support.model_folders import RECIPE, write_models
from support.rest_service import ServeCommand, champion_provider

if TYPE_CHECKING:
    from conftest import Registry


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of this module keep converted models: version 1 has the same content in all of them."""
    return tmp_path_factory.mktemp("converted")


def test_a_version_answers_as_in_keras_and_is_converted_once_for_all_workers(
    registry: Registry, converted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cxr.serving.onnx_loading"):
        workers = [
            champion_provider(registry.uri, registry.name, load_predictor=onnx_loader(converted, 1)) for _ in range(2)
        ]
    expected = registry.expected_probabilities("1")
    for worker in workers:
        predictions = worker.current.predictor.predict(registry.images)
        assert [prediction.probability for prediction in predictions] == pytest.approx(expected, abs=1e-6)
    (difference,) = re.findall(r"largest difference of a probability (\S+) on 8 drawn images", caplog.text)
    assert 0 <= float(difference) < 1e-5
    with pytest.raises(DataError, match=r"expected a Keras network for logit_head, received three_block in ONNX Runt"):
        _ = workers[0].current.predictor.logit_head


def test_a_version_that_cannot_be_converted_is_reported_and_the_earlier_one_goes_on(
    registry: Registry, converted: Path
) -> None:
    image = keras.Input(RECIPE.input_shape)
    x = keras.layers.Flatten()(keras.ops.erfinv(image * 0.9))
    network = registry.files("2") / "model.keras"
    keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(x)).save(network)
    network.with_name("digests.json").unlink()
    Store(registry.uri).client.delete_model_version_tag(registry.name, "2", DIGESTS)
    provider = champion_provider(registry.uri, registry.name, load_predictor=onnx_loader(converted, 1))
    before = sorted(converted.iterdir())
    registry.set_alias("champion", "2")
    assert not provider.reload()
    assert provider.current.version == "1"
    assert "received Erfinv" in str(provider.problem) and "`cxr serve --runtime keras`" in str(provider.problem)
    assert [path for path in converted.iterdir() if path not in before and path.suffix != ".lock"] == []


def test_a_shadow_answers_in_onnx_runtime_too(registry: Registry, converted: Path) -> None:
    registry.set_alias("champion", "2")
    registry.set_alias("challenger", "1")
    champion = champion_provider(registry.uri, registry.name)
    loader = onnx_loader(converted, 1)
    shadow = AliasShadowProvider(Store(registry.uri), registry.name, "challenger", champion, load_predictor=loader)
    assert shadow.reload() and shadow.current is not None
    answers = [prediction.probability for prediction in shadow.current.predictor.predict(registry.images)]
    assert answers == pytest.approx(registry.expected_probabilities("1"), abs=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_workers_of_the_service_answer_without_tensorflow(tmp_path: Path) -> None:
    folders = write_models(tmp_path / "run")
    model = str(folders.models / "three_block")
    command = ServeCommand(tmp_path / "log", "--model", model, "--runtime", "onnx", "--workers", "1")
    try:
        received = command.client.predict_all(*folders.images[:4]).json["predictions"]
        (worker,) = command.workers()
        libraries = Path(f"/proc/{worker}/maps").read_text()
    finally:
        command.kill()
    assert "onnxruntime" in libraries and "tensorflow" not in libraries
    predictor = Predictor.load(folders.models / "three_block", ModelMetadata.read(folders.evaluations / "three_block"))
    expected = [prediction.probability for prediction in predictor.predict(folders.images[:4])]
    assert [result["probability"] for result in received] == pytest.approx(expected, abs=1e-6)


def test_a_missing_package_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    with packages_hidden("onnxruntime"):
        assert main(["serve", "--runtime", "onnx", "--port", "0"]) == 2
    error = capfd.readouterr().err
    assert "has the package onnxruntime" in error and "install requirements/export.txt" in error

"""Every network predicts the same on another Keras backend, and trains there without TensorFlow.

`make test` compares two small networks; `make test-exhaustive` compares all, and trains.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from cxr.models.networks import NETWORKS, build_network
from cxr.steps import load_step
from support.other_backend import run_on_backend
from support.short_backbone import short_backbone
from support.sweeps import exhaustive

OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
    for name in ("jax", "torch")
    if name != keras.backend.backend()
]
SIDE = 64
"""With smaller images the last feature maps have so few values that normalisation amplifies rounding errors."""

PREDICT = """
import sys, keras, numpy as np
folder = sys.argv[1]
images = np.load(folder + "/images.npy")
# The weights are read from the files. Initialising others first would take JAX minutes, one compilation per shape.
zeros = lambda self, shape, dtype=None, **_: np.zeros(shape, dtype or "float32")
for name in ("VarianceScaling", "Zeros", "Ones"):
    getattr(keras.initializers, name).__call__ = zeros
for name in sys.argv[2:]:
    network = keras.saving.load_model(f"{folder}/{name}.keras", compile=False)
    channels = network.input_shape[-1]
    np.save(f"{folder}/{name}.npy", network.predict_on_batch(images[..., :channels]))
assert "tensorflow" not in sys.modules
"""


def take_statistics(network: keras.Model, images: np.ndarray) -> None:
    """Update the statistics of batch normalisation; without them, all images would get the same probability."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(images[..., : network.input_shape[-1]], training=True)


@pytest.mark.parametrize(
    "networks",
    [("three_block", "residual_separable"), *exhaustive((NETWORKS,))],
    ids=["two", "all"],
)
@pytest.mark.parametrize("backend", OTHERS)
def test_same_weights_give_the_same_probabilities_on_another_backend(backend, networks, tmp_path):
    images = np.random.default_rng(5).random((4, SIDE, SIDE, 3), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    expected = {}
    for number, name in enumerate(networks):
        keras.utils.set_random_seed(number)
        network = build_network(name, (SIDE, SIDE, 1 if name == "three_block" else 3))
        take_statistics(network, images)
        network.save(tmp_path / f"{name}.keras")
        expected[name] = np.asarray(network(images[..., : network.input_shape[-1]], training=False))
    run_on_backend(backend, tmp_path, ["-c", PREDICT, str(tmp_path), *networks])
    for name in networks:
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected[name], atol=1e-4, err_msg=name)
        assert np.ptp(expected[name][:, -1]) > 0, name


@pytest.fixture(scope="module")
def prepared(phantom_folder, tmp_path_factory) -> Path:
    """60 phantoms, validated, split and prepared at 48 pixels."""
    root = tmp_path_factory.mktemp("pipeline")
    steps = [
        ("validate", {"data": phantom_folder, "manifest": root / "manifest", "report": root / "report"}),
        ("resplit", {"manifest": root / "manifest", "splits": root / "splits", "max_deviation": 1}),
        ("preprocess", {"data": phantom_folder, "manifest": root / "manifest", "recipe": "s4_resize", "size": 48,
                        "prepared": root / "prepared"}),
    ]  # fmt: skip
    for name, values in steps:
        load_step(name).build(values).execute()
    return root


SHORT = (
    "import sys; from cxr.cli.main import main\n"
    "from support.short_backbone import short_backbone\nwith short_backbone():\n    "
)
"""The whole MobileNetV2 is compared above; JAX would compile its training for most of a minute."""


@pytest.mark.exhaustive  # the test above compares predictions
@pytest.mark.parametrize("backend", OTHERS)
def test_a_model_trained_and_evaluated_on_another_backend_predicts_the_same_here(
    backend, prepared, phantom_folder, tmp_path
):
    common = ["--tracking_uri", "", "--model", "mobilenetv2", "--splits", prepared / "splits"]
    common += ["--manifest", prepared / "manifest", "--prepared", prepared / "prepared"]
    common += ["--trained", tmp_path / "trained"]
    keras.utils.set_random_seed(2)
    weights = tmp_path / "backbone.weights.h5"
    with short_backbone():
        keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(48, 48, 3)).save_weights(weights)
    train = ["train", *common, "--architecture", "mobilenetv2", "--weights", weights]
    train += ["--phantom_epochs", 2, "--unfrozen_layers", 5, "--fine_tune_epochs", 1, "--augmentation", "{zoom: 0.1}"]
    train += ["--mirrored", "true"]
    # One batch holds all images of a split: another size would be compiled too.
    train += ["--checkpoints", tmp_path / "checkpoints", "--batch_size", 64]
    evaluate = [
        "evaluate",
        *common,
        "--data",
        phantom_folder,
        "--evaluation",
        tmp_path / "evaluation",
        "--resamples",
        100,
    ]
    command_lines = [[str(argument) for argument in arguments] for arguments in (train, evaluate)]
    # One process: it compiles the network's operations once.
    run_on_backend(backend, tmp_path, ["-c", f"{SHORT}sys.exit(any(map(main, {command_lines!r})))"])
    metadata = ModelMetadata.read(tmp_path / "evaluation")
    assert metadata.training["device"]["backend"] == backend
    assert metadata.training["epochs_run"] == 3
    assert metadata.mirrored
    predictions = pd.read_parquet(tmp_path / "evaluation" / "predictions.parquet").head(5)
    predicted = Predictor.load(tmp_path / "trained", metadata).predict(
        [phantom_folder / path for path in predictions["path"]]
    )
    np.testing.assert_allclose(
        [prediction.probability for prediction in predicted], predictions["probability"], atol=1e-4
    )

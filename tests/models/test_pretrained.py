"""Networks with pretrained weights: their heads, their input scaling, and what happens when weights do not fit."""

from __future__ import annotations

import socket
from pathlib import Path

import keras
import numpy as np
import pytest

from cxr.errors import ParameterError
from cxr.models.networks import build_network
from cxr.models.pretrained import backbone_layers
from cxr.models.pretrained_networks import PRETRAINED_NETWORKS
from support.sweeps import exhaustive

SHAPE = (64, 64, 3)
SCALED = {
    "resnet50v2": keras.applications.resnet_v2.preprocess_input,
    "vgg16": keras.applications.vgg16.preprocess_input,
    "resnet50": keras.applications.resnet.preprocess_input,
    "densenet121": keras.applications.densenet.preprocess_input,
    "mobilenetv2": keras.applications.mobilenet_v2.preprocess_input,
}


@pytest.fixture(scope="module")
def mobilenet_file(tmp_path_factory) -> Path:
    """Weights of MobileNetV2 without its classifier, drawn from a seed: they have the right shapes."""
    keras.utils.set_random_seed(11)
    path = tmp_path_factory.mktemp("weights") / "mobilenetv2.weights.h5"
    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=SHAPE).save_weights(path)
    return path


@pytest.mark.parametrize(
    ("architecture", "shape", "parameters", "units"),
    [
        ("resnet50v2", (300, 300, 3), 23_564_800 + 10 * 10 * 2048 * 128 + 128 + 33_024 + 65_792 + 257, (128, 256, 256)),
        *exhaustive(
            ("vgg16", (224, 224, 3), 14_714_688 + 512 * 1024 + 1024 + 524_800 + 513, (1024, 512)),
            ("resnet50", (224, 224, 3), 23_587_712 + 2048 * 1024 + 1024 + 524_800 + 513, (1024, 512)),
        ),
    ],
)
def test_network_of_a_source_has_its_head(architecture, shape, parameters, units):
    model = build_network(architecture, shape)
    dense = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert (model.count_params(), tuple(dense)) == (parameters, (*units, 1))
    dropouts = [layer.rate for layer in model.layers if layer.name.startswith("head_dropout")]
    assert dropouts == ([0.2, 0.2, 0.2] if architecture == "resnet50v2" else [])


@pytest.mark.parametrize("architecture", ["vgg16", "mobilenetv2", *exhaustive("densenet121", "resnet50", "resnet50v2")])
def test_input_is_scaled_as_the_published_weights_expect(architecture):
    """A grey image in [0, 1] reaches the backbone as Keras's own preprocessing would give it."""
    grey = np.repeat(np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(1, 64, 64, 1), 3, axis=-1)
    scaling = build_network(architecture, SHAPE).get_layer("scaling")
    expected = SCALED[architecture](255 * grey.copy())
    np.testing.assert_allclose(np.asarray(scaling(grey)), expected, atol=1e-3)


def test_weights_of_a_file_reach_the_backbone_and_leave_the_head(mobilenet_file):
    bare = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=SHAPE)
    bare.load_weights(mobilenet_file)
    keras.utils.set_random_seed(1)
    model = build_network("mobilenetv2", SHAPE, weights=str(mobilenet_file))
    weights = [weight for layer in backbone_layers(model) for weight in layer.get_weights()]
    for expected, weight in zip(bare.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    keras.utils.set_random_seed(1)
    untrained = build_network("mobilenetv2", SHAPE)
    assert not np.array_equal(untrained.get_layer("Conv1").get_weights()[0], model.get_layer("Conv1").get_weights()[0])


def test_weights_of_another_network_are_refused(mobilenet_file):
    with pytest.raises(ParameterError, match=r"expected weights of VGG16.*received weights=.*do not fit"):
        build_network("vgg16", SHAPE, weights=str(mobilenet_file))


@pytest.mark.parametrize(("name", "message"), [("absent.h5", "no such file"), ("model.bin", "a file of weights")])
def test_file_that_holds_no_weights_is_refused(tmp_path, name, message):
    if name == "model.bin":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ParameterError, match=message):
        build_network("mobilenetv2", SHAPE, weights=str(tmp_path / name))


def test_damaged_weights_are_refused(tmp_path):
    path = tmp_path / "damaged.weights.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(ParameterError, match="do not fit"):
        build_network("mobilenetv2", SHAPE, weights=str(path))


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined or non-square")
def test_missing_imagenet_weights_without_network_name_the_file_and_the_alternatives(tmp_path, monkeypatch):
    def no_network(*args: object, **options: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(ParameterError) as caught:
        build_network("mobilenetv2", SHAPE, weights="imagenet")
    text = str(caught.value)
    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels" in text
    assert "weights: FILE" in text and "weights: none" in text
    assert str(tmp_path / "models") in text


def test_stochastic_depth_is_off_in_a_pretrained_backbone(tmp_path):
    path = tmp_path / "b0.weights.h5"
    keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=SHAPE).save_weights(path)
    rates = [
        {layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)} - {0.0}
        for model in (
            build_network("efficientnetv2b0", SHAPE),
            build_network("efficientnetv2b0", SHAPE, weights=str(path)),
        )
    ]
    assert rates[0] and not rates[1]


@pytest.mark.parametrize("architecture", sorted(PRETRAINED_NETWORKS))
def test_input_that_the_network_cannot_take_is_refused_with_every_reason(architecture):
    with pytest.raises(ParameterError) as caught:
        build_network(architecture, (24, 24, 1))
    assert len(caught.value.problems) == 2
    assert "channels: 3" in caught.value.problems[0]
    assert "32 x 32" in caught.value.problems[1]


def test_options_that_a_network_does_not_have_are_refused():
    with pytest.raises(ParameterError, match="weights=none for three_block"):
        build_network("three_block", (64, 64, 1), weights="imagenet")
    with pytest.raises(ParameterError, match="batch_normalisation=null"):
        build_network("residual_separable", (64, 64, 3), batch_normalisation=False)


@pytest.mark.parametrize("architecture", ["shallow", "three_block", "plain_cnn", "mobilenetv2"])
def test_batch_normalisation_comes_before_the_activation(architecture):
    plain, normalised = (build_network(architecture, SHAPE, batch_normalisation=value) for value in (None, True))
    kinds = [type(layer).__name__ for layer in normalised.layers]
    assert kinds.count("BatchNormalization") > [type(layer).__name__ for layer in plain.layers].count(
        "BatchNormalization"
    )
    names = [layer.name for layer in normalised.layers]
    first = next(name for name in names if name.endswith("_norm") and not name.startswith("block"))
    assert names[names.index(first) + 1] == first.replace("_norm", "_relu")

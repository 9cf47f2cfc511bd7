"""Each network is what its source system describes, at the source's input size and at smaller ones."""

from __future__ import annotations

import numpy as np
import pytest

from cxr.errors import ParameterError
from cxr.models.networks import NETWORKS, build_network
from support.sweeps import exhaustive


def counts(model):
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return model.count_params(), trainable


@pytest.mark.parametrize(
    ("architecture", "shape", "parameters", "trainable", "outputs"),
    [
        ("residual_separable", (299, 299, 3), 157_010, 154_866, 2),
        ("shallow", (64, 64, 3), 1_625_281, 1_625_281, 1),
        ("three_block", (64, 64, 1), 117_889, 117_889, 1),
        ("plain_cnn", (224, 224, 3), 11_169_089, 11_169_089, 1),
    ],
)
def test_network_has_the_parameters_of_its_source(architecture, shape, parameters, trainable, outputs):
    model = build_network(architecture, shape)
    assert counts(model) == (parameters, trainable)
    assert model.output_shape == (None, outputs)


@pytest.mark.parametrize("networks", [("three_block", "mobilenetv2"), *exhaustive((NETWORKS,))], ids=["two", "all"])
def test_every_network_is_flat_so_that_heatmaps_survive_saving(networks):
    import keras

    for architecture in networks:
        model = build_network(architecture, (96, 96, 3))
        assert not [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
        assert model.input_shape == (None, 96, 96, 3)


def test_residual_block_order_follows_the_source():
    model = build_network("residual_separable", (64, 64, 3))
    names = [layer.name for layer in model.layers if layer.name.startswith("block1_")]
    assert names.index("block1_conv1") < names.index("block1_elu1") < names.index("block1_conv2")
    assert "block1_elu3" not in names
    assert model.get_layer("block1_relu").output.shape[-1] == 32
    assert model.get_layer("block4_add").output.shape[-1] == 128


def test_unknown_network_lists_the_choices():
    with pytest.raises(ParameterError, match=r"three_block.*received architecture='resnet'"):
        build_network("resnet", (64, 64, 1))


def test_input_too_small_to_pool_is_a_parameter_error():
    with pytest.raises(ParameterError, match="take a larger recipe size"):
        build_network("three_block", (16, 16, 1))

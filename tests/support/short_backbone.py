"""Backbones of a few layers in place of MobileNetV2 and EfficientNet-Lite0, which TensorFlow takes long to trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import pytest
from keras import layers

from cxr.models import efficientnet_lite
from cxr.models.efficientnet_lite import InvertedResidualStage
from cxr.models.pretrained_networks import PRETRAINED_NETWORKS

LAYERS = 13
"""Number of layers that pretrained weights are for."""
CHANNELS = 16
"""Channels of the last feature map."""


@contextmanager
def short_backbone() -> Iterator[None]:
    """Replace ``keras.applications.MobileNetV2`` by a stem and one of its blocks, with shortcut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "MobileNetV2", _network)
        yield


@contextmanager
def short_lite0() -> Iterator[None]:
    """Leave EfficientNet-Lite0 few blocks, two of them with shortcut, and its strides."""
    stages = (
        InvertedResidualStage(3, 2, 1, 16, 1),
        InvertedResidualStage(3, 2, 1, 24, 2),
        InvertedResidualStage(3, 2, 1, 32, 2),
        InvertedResidualStage(3, 2, 3, 48, 1),
    )
    network = replace(PRETRAINED_NETWORKS["efficientnet_lite0"], feature_layers=("block2_add", "block4_add"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet_lite, "STAGES", stages)
        patch.setattr(efficientnet_lite, "TOP_CHANNELS", 96)
        patch.setitem(PRETRAINED_NETWORKS, "efficientnet_lite0", network)
        yield


def _network(
    *, include_top: bool, weights: None, input_tensor: Any = None, input_shape: tuple[int, ...] | None = None
) -> keras.Model:
    assert not include_top and weights is None
    image = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = _normalised(layers.Conv2D(16, 3, strides=4, padding="same", use_bias=False, name="Conv1")(image), "Conv1")
    shortcut = x = layers.ReLU(6.0, name="Conv1_relu")(x)
    x = _normalised(layers.Conv2D(32, 1, use_bias=False, name="expand")(x), "expand")
    x = layers.ReLU(6.0, name="expand_relu")(x)
    x = _normalised(layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x), "depthwise")
    x = layers.ReLU(6.0, name="depthwise_relu")(x)
    x = _normalised(layers.Conv2D(CHANNELS, 1, use_bias=False, name="project")(x), "project")
    x = layers.Add(name="add")([shortcut, x])
    return keras.Model(keras.utils.get_source_inputs(x), layers.ReLU(6.0, name="out_relu")(x))


def _normalised(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_BN")(x)

"""The detector of opacities: RetinaNet on a pretrained backbone, with an output for the whole image.

Lin et al. 2017, arXiv:1708.02002: a feature pyramid of three levels, and two heads whose convolutions all levels share.
Two things differ. Convolutions are normalised, with the statistics of each level apart, because features of different
levels vary differently. And the last feature map also tells whether there is any opacity in the image (multi-task
learning), which the backbone learns from every image, also from those without boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from cxr.errors import ParameterError
from cxr.models.pretrained import build_pretrained_backbone
from cxr.models.pretrained_networks import DETECTOR_BACKBONES, PRETRAINED_NETWORKS
from cxr.regions.anchors import ANCHORS_PER_CELL, LEVELS

PRIOR_PROBABILITY = 0.01
"""Probability of an opacity that every anchor starts with; with 0.5 the many negative anchors would swamp the loss."""
SQUEEZE_REDUCTION = 16
"""Channels of a feature map per unit of its squeeze-and-excitation block."""
_NORM_MOMENTUM = 0.9
"""Statistics of 50 batches; small data sets have only a few hundred batches in all."""


def build_detector(
    backbone: str,
    input_shape: tuple[int, int, int],
    *,
    squeeze_excitation: bool,
    weights: str,
    channels: int,
    convolutions: int,
    dropout: float,
) -> keras.Model:
    """Build the detector.

    Args:
        backbone: one of :data:`cxr.models.pretrained_networks.DETECTOR_BACKBONES`.
        input_shape: (height, width, 3): a square whose side is a multiple of 32 pixels.
        squeeze_excitation: whether channels of the backbone's feature maps are weighted by what the whole image shows
            (Hu et al. 2018, arXiv:1709.01507).
        weights: of the backbone: ``"imagenet"``, ``"none"`` (drawn from the seed) or a file.
        channels: channels of the feature pyramid and the heads.
        convolutions: convolutions of each head before its last one.
        dropout: share of the pooled features that is dropped before the output for the whole image, in [0, 1).

    Returns:
        Flat model from ``(batch, side, side, 3)`` float32 in [0, 1] to a dictionary of float32:

        * ``class_logits``: ``(batch, anchors)``, in the order of :func:`cxr.regions.anchors.make_anchors`.
        * ``box_deltas``: ``(batch, anchors, 4)``, see :data:`cxr.regions.anchors.Deltas`.
        * ``image_logit``: ``(batch, 1)``, whether the image shows any opacity.

        All layers above the backbone are named ``head_...``.

    Raises:
        ParameterError: if there is no such backbone, the input does not suit it, or the weights do not fit.
        InstallationError: if the package with the weights of the backbone is not installed.
    """
    _check_backbone_and_input(backbone, input_shape)
    network = build_pretrained_backbone(backbone, input_shape, weights=weights)
    feature_layers = PRETRAINED_NETWORKS[backbone].feature_layers or ()
    features = [*(network.get_layer(name).output for name in feature_layers), network.output]
    if squeeze_excitation:
        features = [
            _squeeze_and_excite(x, f"head_{level.name}_squeeze") for level, x in zip(LEVELS, features, strict=True)
        ]
    pyramid = _build_pyramid(features, channels)
    prior_logit = math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY))
    class_logits = _apply_head(pyramid, "class", 1, channels, convolutions, bias=prior_logit)
    pooled = layers.GlobalAveragePooling2D(name="head_image_average")(features[-1])
    if dropout:
        pooled = layers.Dropout(dropout, name="head_image_dropout")(pooled)
    outputs = {
        "class_logits": layers.Reshape((-1,), dtype="float32", name="head_class_logits")(class_logits),
        "box_deltas": _apply_head(pyramid, "box", 4, channels, convolutions, bias=0.0),
        "image_logit": layers.Dense(1, dtype="float32", name="head_image_logit")(pooled),
    }
    return keras.Model(network.inputs[0], outputs, name=f"{backbone}_detector")


def _check_backbone_and_input(backbone: str, input_shape: tuple[int, int, int]) -> None:
    problems = []
    if backbone not in DETECTOR_BACKBONES:
        problems.append(f"expected backbone to be one of {', '.join(DETECTOR_BACKBONES)}, received {backbone=}")
    height, width, _ = input_shape
    stride = LEVELS[-1].stride
    if height != width or height % stride:
        problems.append(
            f"expected a square input whose side is a multiple of {stride} pixels, received {input_shape=}; "
            f"take another recipe size, for example {max(1, round(height / stride)) * stride}"
        )
    if problems:
        raise ParameterError(problems)


def _squeeze_and_excite(x: Any, name: str) -> Any:
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_average")(x)
    gate = layers.Conv2D(max(1, channels // SQUEEZE_REDUCTION), 1, activation="relu", name=f"{name}_conv")(gate)
    gate = layers.Conv2D(channels, 1, activation="sigmoid", name=f"{name}_gate")(gate)
    return layers.Multiply(name=f"{name}_multiply")([x, gate])


def _build_pyramid(features: Sequence[Any], channels: int) -> list[Any]:
    """Add what larger strides have recognised to the smaller ones: from ``(batch, height, width, any)`` by level."""
    pyramid: list[Any] = []
    for level, x in reversed([*zip(LEVELS, features, strict=True)]):
        name = f"head_{level.name}"
        x = _normalise(layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_lateral")(x), f"{name}_lateral")
        if pyramid:
            x = layers.Add(name=f"{name}_add")([x, layers.UpSampling2D(name=f"{name}_upsampling")(pyramid[0])])
        pyramid.insert(0, x)
    return [
        _normalise(
            layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"head_{level.name}_output")(x),
            f"head_{level.name}_output",
        )
        for level, x in zip(LEVELS, pyramid, strict=True)
    ]


def _apply_head(
    pyramid: Sequence[Any], name: str, values: int, channels: int, convolutions: int, *, bias: float
) -> Any:
    """Predict ``(batch, anchors, values)``; the levels share convolutions, and each has normalisations of its own."""
    shared = [
        layers.Conv2D(
            channels,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"head_{name}_conv{number}",
        )
        for number in range(1, convolutions + 1)
    ]
    last = layers.Conv2D(
        ANCHORS_PER_CELL * values, 3, padding="same", kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(bias), name=f"head_{name}_conv_last",
    )  # fmt: skip
    outputs = []
    for level, x in zip(LEVELS, pyramid, strict=True):
        for convolution in shared:
            x = _normalise(convolution(x), f"{convolution.name}_{level.name}")
            x = layers.ReLU(name=f"{convolution.name}_{level.name}_relu")(x)
        outputs.append(layers.Reshape((-1, values), name=f"head_{name}_{level.name}")(last(x)))
    return layers.Concatenate(axis=1, dtype="float32", name=f"head_{name}_levels")(outputs)


def _normalise(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=_NORM_MOMENTUM, name=f"{name}_norm")(x)

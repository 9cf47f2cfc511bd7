"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6, for devices without much power.

Blocks and coefficients: Tan and Le 2019, arXiv:1905.11946, and the Lite variants of the same authors' code (2020).
Their ImageNet weights are packages that hold a file of torch, see :mod:`cxr.models.torch_weights`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from cxr.errors import ParameterError
from cxr.models.torch_weights import read_torch_weights


@dataclass(frozen=True)
class InvertedResidualStage:
    """Blocks with the same number of channels: expand, filter each channel, project.

    Attributes:
        kernel: side of the depthwise kernel, pixels.
        stride: stride of the first block, pixels.
        expansion: channels inside of a block, as a multiple of those at its input.
        channels: channels at the output of a block, before scaling.
        repeats: number of blocks, before scaling.
    """

    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int


STAGES = (
    InvertedResidualStage(3, 1, 1, 16, 1),
    InvertedResidualStage(3, 2, 6, 24, 2),
    InvertedResidualStage(5, 2, 6, 40, 2),
    InvertedResidualStage(3, 2, 6, 80, 3),
    InvertedResidualStage(5, 1, 6, 112, 3),
    InvertedResidualStage(5, 2, 6, 192, 4),
    InvertedResidualStage(3, 1, 6, 320, 1),
)
STEM_CHANNELS, TOP_CHANNELS = 32, 1280
"""Channels of the first and the last convolution, the same in all sizes."""
COEFFICIENTS: Mapping[str, tuple[float, float]] = {
    "EfficientNetLite0": (1.0, 1.0),
    "EfficientNetLite1": (1.0, 1.1),
    "EfficientNetLite2": (1.1, 1.2),
}
"""Size to the factors of channels and of repeats."""
IMAGENET_CLASSES = 1000
_KERNEL_AXES = {layers.Conv2D: (3, 2, 0, 1), layers.DepthwiseConv2D: (2, 3, 0, 1)}
"""Axes of a kernel of Keras in torch's order: outputs, inputs, height, width."""
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
"""Arrays of a normalisation in the order of Keras; in the file, the number of batches follows."""
_NORM_NUMBERS = {"stem": 0, "expand": 0, "depthwise": 1, "project": 2, "top": 1}
"""Part of the network to the number of its normalisation in the file of weights."""


def build_backbone(size: str, image: Any) -> keras.Model:
    """Build the network without its classifier.

    Args:
        size: one of :data:`COEFFICIENTS`.
        image: tensor ``(batch, height, width, 3)``, scaled to (pixel - 127) / 128 for pixels in [0, 255].

    Returns:
        Flat functional model from the input that ``image`` comes from to
        ``(batch, ceil(height / 32), ceil(width / 32), 1280)``. Blocks are numbered from 0, as in the file of weights.
    """
    width, depth = COEFFICIENTS[size]
    x = _normalise(_convolve(image, STEM_CHANNELS, 3, "stem", stride=2), "stem")
    number = 0
    for stage in STAGES:
        # As in the stem and the last convolution, the number of the first and the last stage's blocks stays.
        is_scaled = stage not in (STAGES[0], STAGES[-1])
        for repeat in range(math.ceil(stage.repeats * depth) if is_scaled else stage.repeats):
            x = _add_block(x, stage, _scale_channels(stage.channels, width), f"block{number}", is_first=repeat == 0)
            number += 1
    x = _normalise(_convolve(x, TOP_CHANNELS, 1, "top"), "top")
    return keras.Model(keras.utils.get_source_inputs(image), x, name=size)


def load_imagenet_weights(backbone: keras.Model, path: Path, sha256: str) -> None:
    """Take the weights of a file of torch.

    Args:
        backbone: what :func:`build_backbone` gave.
        path: file of the whole network, with its classifier of 1000 classes.
        sha256: hexadecimal digest that the file must have.

    Raises:
        ParameterError: if the file is another, or its arrays are not those of the network, in the network's order.
    """
    arrays = read_torch_weights(path, sha256)
    shapes = [(name, array.shape) for name, array in arrays.items()]
    expected = [*_expected_arrays(backbone)]
    if shapes != expected:
        position = next(
            (number for number, pair in enumerate(zip(shapes, expected, strict=False)) if pair[0] != pair[1]),
            min(len(shapes), len(expected)),
        )
        raise ParameterError(
            [
                f"expected the {len(expected)} arrays of {backbone.name}, received weights={path} with {len(shapes)}; "
                f"number {position + 1} is {_describe(shapes, position)} in place of {_describe(expected, position)}; "
                "take the weights of this network"
            ]
        )
    for layer in backbone.layers:
        if type(layer) in _KERNEL_AXES:
            kernel = arrays[f"{_name_in_file(layer)}.weight"]
            layer.set_weights([kernel.transpose(np.argsort(_KERNEL_AXES[type(layer)]))])
        elif isinstance(layer, layers.BatchNormalization):
            layer.set_weights([arrays[f"{_name_in_file(layer)}.{part}"] for part in _NORM_PARTS])


def _add_block(x: Any, stage: InvertedResidualStage, channels: int, name: str, *, is_first: bool) -> Any:
    shortcut = x
    if stage.expansion != 1:
        x = _normalise(_convolve(x, x.shape[-1] * stage.expansion, 1, f"{name}_expand"), f"{name}_expand")
    x = layers.DepthwiseConv2D(
        stage.kernel,
        strides=stage.stride if is_first else 1,
        padding="same",
        use_bias=False,
        depthwise_initializer=_initializer(),
        name=f"{name}_depthwise_conv",
    )(x)
    x = _normalise(x, f"{name}_depthwise")
    x = _normalise(_convolve(x, channels, 1, f"{name}_project"), f"{name}_project", activate=False)
    return x if is_first else layers.Add(name=f"{name}_add")([shortcut, x])


def _convolve(x: Any, channels: int, kernel: int, name: str, *, stride: int = 1) -> Any:
    return layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(),
        name=f"{name}_conv",
    )(x)


def _normalise(x: Any, name: str, *, activate: bool = True) -> Any:
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_norm")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x


def _initializer() -> keras.initializers.Initializer:
    """Make the source's initializer; each layer needs its own, because the same one draws the same numbers again."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def _scale_channels(channels: int, width: float) -> int:
    """Scale to the nearest multiple of 8, but not down by more than a tenth."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * channels * width else scaled


def _expected_arrays(backbone: keras.Model) -> Iterator[tuple[str, tuple[int, ...]]]:
    """List names and shapes of the arrays that a file of weights must have, in order."""
    for layer in backbone.layers:
        if type(layer) in _KERNEL_AXES:
            shape = layer.kernel.shape
            yield f"{_name_in_file(layer)}.weight", tuple(shape[axis] for axis in _KERNEL_AXES[type(layer)])
        elif isinstance(layer, layers.BatchNormalization):
            for part in _NORM_PARTS:
                yield f"{_name_in_file(layer)}.{part}", tuple(layer.gamma.shape)
            yield f"{_name_in_file(layer)}.num_batches_tracked", ()
    yield "_fc.weight", (IMAGENET_CLASSES, TOP_CHANNELS)
    yield "_fc.bias", (IMAGENET_CLASSES,)


def _name_in_file(layer: Any) -> str:
    """Translate for example ``block3_expand_conv`` to ``_blocks.3._expand_conv``."""
    block, part, kind = re.fullmatch(r"(?:block(\d+)_)?(\w+)_(conv|norm)", layer.name).groups()  # type: ignore[union-attr]
    if kind == "norm":
        name = f"_bn{_NORM_NUMBERS[part]}"
    elif block:
        name = f"_{part}_conv"
    else:
        name = "_conv_stem" if part == "stem" else "_conv_head"
    return f"_blocks.{block}.{name}" if block else name


def _describe(shapes: list[tuple[str, tuple[int, ...]]], position: int) -> str:
    return "{} with shape {}".format(*shapes[position]) if position < len(shapes) else "missing"

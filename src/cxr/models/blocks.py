"""Layers that several networks share: a convolution or dense layer with its activation."""

from __future__ import annotations

from typing import Any

from keras import layers


def convolution(x: Any, channels: int, kernel: int, name: str, *, batch_normalisation: bool = False) -> Any:
    """Add a convolution with ReLU.

    Args:
        x: tensor ``(batch, height, width, channels)``.
        channels: channels of the output.
        kernel: side of the square kernel, pixels.
        name: name of the layer.
        batch_normalisation: whether to normalise before the activation.

    Returns:
        ``(batch, height - kernel + 1, width - kernel + 1, channels)``.
    """
    if not batch_normalisation:
        return layers.Conv2D(channels, kernel, activation="relu", name=name)(x)
    x = layers.Conv2D(channels, kernel, name=name)(x)
    return _normalise_and_rectify(x, name)


def dense(x: Any, units: int, name: str, *, batch_normalisation: bool = False) -> Any:
    """Add a dense layer with ReLU.

    Args:
        x: tensor ``(batch, features)``.
        units: number of outputs.
        name: name of the layer.
        batch_normalisation: whether to normalise before the activation.

    Returns:
        ``(batch, units)``.
    """
    if not batch_normalisation:
        return layers.Dense(units, activation="relu", name=name)(x)
    x = layers.Dense(units, name=name)(x)
    return _normalise_and_rectify(x, name)


def probability(x: Any) -> Any:
    """Add the sigmoid output: the probability of pneumonia, in float32 whatever the precision of the other layers.

    Args:
        x: tensor ``(batch, features)``.

    Returns:
        ``(batch, 1)`` sigmoid.
    """
    return layers.Dense(1, activation="sigmoid", dtype="float32", name="probability")(x)


def _normalise_and_rectify(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)

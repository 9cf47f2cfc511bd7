"""S0: residual network of 4x4 separable convolutions.

At 299x299x3 it has exactly 157,010 parameters, 154,866 of them trainable. The source does not state the kernel of the
stem and of the shortcuts; it follows from that count: 4x4 everywhere.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

BLOCKS: tuple[int, ...] = (32, 64, 96, 128)
"""Output channels of the four residual blocks; the stem has 16."""


def build(input_shape: tuple[int, int, int], *, dropout: float = 0.5) -> keras.Model:
    """Build S0's network.

    Stem (separable 16, batch normalisation, ReLU, max-pool 2), four residual blocks 16->32->64->96->128 each
    followed by max-pool 2, global average pool, dense 512 ReLU, dropout, dense 2 softmax.

    Args:
        input_shape: (height, width, channels); the source's is (299, 299, 3).
        dropout: share of the 512 units dropped while training.

    Returns:
        Model from ``(batch, height, width, channels)`` float32 in [0, 1] to ``(batch, 2)`` softmax.
    """
    inputs = keras.Input(input_shape, name="image")
    x = layers.SeparableConv2D(16, 4, padding="same", name="stem_conv")(inputs)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.MaxPooling2D(2, name="stem_pool")(x)
    for number, channels in enumerate(BLOCKS, start=1):
        x = _residual_block(x, channels, f"block{number}")
        x = layers.MaxPooling2D(2, name=f"block{number}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(512, activation="relu", name="dense")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(2, activation="softmax", dtype="float32", name="probability")(x)
    return keras.Model(inputs, outputs, name="residual_separable")


def _residual_block(x: Any, channels: int, name: str) -> Any:
    shortcut = layers.SeparableConv2D(channels, 4, padding="same", name=f"{name}_shortcut")(x)
    shortcut = layers.BatchNormalization(name=f"{name}_shortcut_norm")(shortcut)
    width = x.shape[-1]
    for number in (1, 2):
        x = layers.SeparableConv2D(width, 4, padding="same", name=f"{name}_conv{number}")(x)
        x = layers.BatchNormalization(name=f"{name}_norm{number}")(x)
        x = layers.ELU(name=f"{name}_elu{number}")(x)
    x = layers.SeparableConv2D(channels, 4, padding="same", name=f"{name}_conv3")(x)
    x = layers.BatchNormalization(name=f"{name}_norm3")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)

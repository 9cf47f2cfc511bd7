"""S2: three convolution blocks, chosen by its source for AUC."""

from __future__ import annotations

import keras
from keras import layers


def build(input_shape: tuple[int, int, int], *, dropout: float = 0.0) -> keras.Model:
    """Build S2's network.

    Three times conv 32 5x5 ReLU and max-pool 2, then flatten, dense 128 ReLU, sigmoid.

    Args:
        input_shape: (height, width, channels); the source's is (64, 64, 1), which gives 117,889 parameters.
        dropout: share of the 128 units dropped while training; the source has none.

    Returns:
        Model from ``(batch, height, width, channels)`` float32 in [0, 1] to ``(batch, 1)`` sigmoid.
    """
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for number in (1, 2, 3):
        x = layers.Conv2D(32, 5, activation="relu", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", name="dense")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(1, activation="sigmoid", name="probability")(x)
    return keras.Model(inputs, outputs, name="three_block")

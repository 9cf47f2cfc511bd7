"""S1: shallow network of two convolutions."""

from __future__ import annotations

import keras
from keras import layers


def build(input_shape: tuple[int, int, int], *, dropout: float = 0.1) -> keras.Model:
    """Build S1's network.

    Conv 32 3x3 ReLU, max-pool 2, conv 64 3x3 ReLU, max-pool 2, dropout, flatten, dense 128 ReLU, sigmoid.

    Args:
        input_shape: (height, width, channels); the source's is (64, 64, 3), which gives 1,625,281 parameters.
        dropout: share of the feature map dropped while training.

    Returns:
        Model from ``(batch, height, width, channels)`` float32 in [0, 1] to ``(batch, 1)`` sigmoid.
    """
    inputs = keras.Input(input_shape, name="image")
    x = layers.Conv2D(32, 3, activation="relu", name="conv1")(inputs)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(64, 3, activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", name="dense")(x)
    outputs = layers.Dense(1, activation="sigmoid", name="probability")(x)
    return keras.Model(inputs, outputs, name="shallow")

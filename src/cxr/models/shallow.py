"""S1: shallow network of two convolutions."""

from __future__ import annotations

import keras
from keras import layers

from cxr.models.blocks import convolution, dense, probability


def build(input_shape: tuple[int, int, int], *, dropout: float = 0.1, batch_normalisation: bool = False) -> keras.Model:
    """Build S1's network.

    Conv 32 3x3 ReLU, max-pool 2, conv 64 3x3 ReLU, max-pool 2, dropout, flatten, dense 128 ReLU, sigmoid.

    Args:
        input_shape: (height, width, channels); the source's is (64, 64, 3), which gives 1,625,281 parameters.
        dropout: share of the feature map dropped while training.
        batch_normalisation: whether convolutions and the dense layer are normalised; the source has none.

    Returns:
        Model from ``(batch, height, width, channels)`` float32 in [0, 1] to ``(batch, 1)`` sigmoid.
    """
    inputs = keras.Input(input_shape, name="image")
    x = convolution(inputs, 32, 3, "conv1", batch_normalisation=batch_normalisation)
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = convolution(x, 64, 3, "conv2", batch_normalisation=batch_normalisation)
    x = layers.MaxPooling2D(2, name="pool2")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Flatten(name="flatten")(x)
    x = dense(x, 128, "dense", batch_normalisation=batch_normalisation)
    return keras.Model(inputs, probability(x), name="shallow")

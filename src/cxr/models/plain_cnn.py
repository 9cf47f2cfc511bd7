"""S4: the source's own network, trained from scratch beside its transfer learning."""

from __future__ import annotations

import keras
from keras import layers

from cxr.models.blocks import convolution, dense, probability


def build(input_shape: tuple[int, int, int], *, dropout: float = 0.5, batch_normalisation: bool = False) -> keras.Model:
    """Build S4's own network.

    Conv 32, 64 and 128 3x3 ReLU, each followed by max-pool 2, then flatten, dense 128 ReLU, dropout, sigmoid.

    Args:
        input_shape: (height, width, channels); the source's is (224, 224, 3), which gives 11,169,089 parameters.
        dropout: share of the 128 units dropped while training.
        batch_normalisation: whether convolutions and the dense layer are normalised; the source has none.

    Returns:
        Model from ``(batch, height, width, channels)`` float32 in [0, 1] to ``(batch, 1)`` sigmoid.
    """
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for number, channels in enumerate((32, 64, 128), start=1):
        x = convolution(x, channels, 3, f"conv{number}", batch_normalisation=batch_normalisation)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = dense(x, 128, "dense", batch_normalisation=batch_normalisation)
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, probability(x), name="plain_cnn")

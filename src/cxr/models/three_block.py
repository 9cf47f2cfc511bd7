"""S2: three convolution blocks, which its source chose by AUROC."""

from __future__ import annotations

import keras
from keras import layers

from cxr.models.blocks import convolution, dense, probability


def build(input_shape: tuple[int, int, int], *, dropout: float = 0.0, batch_normalisation: bool = False) -> keras.Model:
    """Build S2's network.

    Three times conv 32 5x5 ReLU and max-pool 2, then flatten, dense 128 ReLU, sigmoid.

    Args:
        input_shape: (height, width, channels); the source's is (64, 64, 1), which gives 117,889 parameters.
        dropout: share of the 128 units dropped while training; the source has none.
        batch_normalisation: whether convolutions and the dense layer are normalised; the source has none.

    Returns:
        Model from ``(batch, height, width, channels)`` float32 in [0, 1] to ``(batch, 1)`` sigmoid.
    """
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for number in (1, 2, 3):
        x = convolution(x, 32, 5, f"conv{number}", batch_normalisation=batch_normalisation)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = dense(x, 128, "dense", batch_normalisation=batch_normalisation)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, probability(x), name="three_block")

"""S4: VGG16, pretrained on ImageNet (Simonyan and Zisserman 2014, arXiv:1409.1556)."""

from __future__ import annotations

import keras

from cxr.models.pretrained import NO_WEIGHTS, Backbone, source_head_s4

BACKBONE = Backbone("VGG16", scale=255.0, offset=(-103.939, -116.779, -123.68))


def build(
    input_shape: tuple[int, int, int],
    *,
    dropout: float = 0.0,
    batch_normalisation: bool = False,
    weights: str = NO_WEIGHTS,
) -> keras.Model:
    """Build VGG16 with the head of S4.

    Args:
        input_shape: (height, width, channels); the source's is (224, 224, 3).
        dropout: share of units dropped after each dense layer of the head.
        batch_normalisation: whether the dense layers of the head are normalised.
        weights: ``"imagenet"``, ``"none"`` (drawn from the seed) or a file with the backbone's weights.

    Returns:
        Model from ``(batch, height, width, 3)`` float32 in [0, 1] to ``(batch, 1)`` sigmoid.

    Raises:
        ParameterError: if the input does not suit the network, or the weights cannot be had or do not fit.
    """
    inputs = keras.Input(input_shape, name="image")
    features = BACKBONE.features(inputs, weights)
    outputs = source_head_s4(features, dropout, batch_normalisation=batch_normalisation)
    return keras.Model(inputs, outputs, name="vgg16")

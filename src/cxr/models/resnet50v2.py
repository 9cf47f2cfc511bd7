"""S3: ResNet50V2, pretrained on ImageNet (He et al. 2016, arXiv:1603.05027)."""

from __future__ import annotations

import keras

from cxr.models.pretrained import NO_WEIGHTS, Backbone, source_head_s3

BACKBONE = Backbone("ResNet50V2", scale=2.0, offset=-1.0)


def build(
    input_shape: tuple[int, int, int],
    *,
    dropout: float = 0.2,
    batch_normalisation: bool = False,
    weights: str = NO_WEIGHTS,
) -> keras.Model:
    """Build ResNet50V2 with the head of S3.

    Args:
        input_shape: (height, width, channels); the source's is (300, 300, 3), which gives 49,878,401 parameters.
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
    outputs = source_head_s3(features, dropout, batch_normalisation=batch_normalisation)
    return keras.Model(inputs, outputs, name="resnet50v2")

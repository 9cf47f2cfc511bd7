"""DenseNet121 with S4's head, the network of many published chest classifiers (Huang et al. 2016, arXiv:1608.06993)."""

from __future__ import annotations

import keras

from cxr.models.pretrained import NO_WEIGHTS, Backbone, source_head_s4

BACKBONE = Backbone(
    "DenseNet121", scale=(1 / 0.229, 1 / 0.224, 1 / 0.225), offset=(-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)
)


def build(
    input_shape: tuple[int, int, int],
    *,
    dropout: float = 0.0,
    batch_normalisation: bool = False,
    weights: str = NO_WEIGHTS,
) -> keras.Model:
    """Build DenseNet121 with the head of S4.

    Args:
        input_shape: (height, width, channels); usually (224, 224, 3).
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
    return keras.Model(inputs, outputs, name="densenet121")

"""One network for a whole model: from prepared images to the calibrated probability of pneumonia.

What :class:`cxr.inference.predictor.Predictor` computes around its networks is part of it: scaling, the channels, the
mirror image, the weights of an ensemble and all temperatures. Who runs it prepares the images, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.evaluation.calibration import log_odds
from cxr.inference.predictor import EnsemblePredictor, Predictor

if TYPE_CHECKING:
    from cxr.images.recipes import Recipe

PROBABILITY = "probability"
"""Name of the output."""

LIMIT = float(log_odds(1.0))
"""Largest log odds: :func:`cxr.evaluation.calibration.log_odds` keeps probabilities away from 0 and 1."""


def probability_network(predictor: Predictor) -> Any:
    """Build the network of a model. It shares its weights with the predictor.

    Everything after the last layer is computed with log odds, because a 32-bit probability loses its digits near 1.

    Args:
        predictor: a calibrated model or ensemble.

    Returns:
        Keras model. It has one input for each recipe, ``(batch, size, size, planes)`` uint8, with the names and the
        order of :func:`input_names`. The output is ``(batch,)`` float32 in (0, 1).

    Raises:
        MissingInputError: if the model isn't calibrated.
    """
    import keras

    images = {
        recipe: keras.Input((recipe.size, recipe.size, recipe.planes), dtype="uint8", name=name)
        for recipe, name in zip(predictor.recipes, input_names(predictor.recipes), strict=True)
    }
    probability = keras.ops.sigmoid(_calibrated_log_odds(predictor, images))
    return keras.Model(list(images.values()), probability, name=PROBABILITY)


def input_names(recipes: Sequence[Recipe]) -> list[str]:
    """Name the inputs: as the recipes, with a number where several recipes have one name and different values.

    Args:
        recipes: the recipes of a model, each once.

    Returns:
        One name per recipe, in order.
    """
    names = [recipe.name for recipe in recipes]
    return [
        name if names.count(name) == 1 else f"{name}_{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]


def _calibrated_log_odds(predictor: Predictor, images: Mapping[Recipe, Any]) -> Any:
    """``(batch,)`` log odds of the calibrated probability."""
    import keras

    raw = _raw_log_odds(predictor, images)
    return keras.ops.clip(raw, -LIMIT, LIMIT) / predictor.operating_point()[0]


def _raw_log_odds(predictor: Predictor, images: Mapping[Recipe, Any]) -> Any:
    """``(batch,)`` log odds before the temperature; of an ensemble pooled."""
    import keras

    if isinstance(predictor, EnsemblePredictor):
        members = zip(predictor.members, predictor.metadata.weighted_members, strict=True)
        weighted = [
            member.weight * keras.ops.clip(_calibrated_log_odds(loaded, images), -LIMIT, LIMIT)
            for loaded, member in members
        ]
        return sum(weighted[1:], weighted[0])
    inputs = _network_inputs(images[predictor.recipe], predictor.recipe)
    if not predictor.metadata.mirrored:
        return _plain_log_odds(predictor, inputs)
    # One call for both: the weights are in the file once.
    both = _plain_log_odds(predictor, keras.ops.concatenate([inputs, inputs[:, :, ::-1]], axis=0))
    return keras.ops.mean(keras.ops.reshape(keras.ops.clip(both, -LIMIT, LIMIT), (2, -1)), axis=0)


def _network_inputs(images: Any, recipe: Recipe) -> Any:
    """What :func:`cxr.images.recipes.to_network_input` does, as operations of the network."""
    from keras import ops

    scaled = ops.cast(images, "float32") / 255.0
    if recipe.channels == recipe.planes:
        return scaled
    grey = ops.repeat(scaled[..., :1], recipe.channels - recipe.planes + 1, axis=-1)
    return ops.concatenate([grey, scaled[..., 1:]], axis=-1) if recipe.canny else grey


def _plain_log_odds(predictor: Predictor, inputs: Any) -> Any:
    """``(batch,)`` log odds of one network, without calibration."""
    import keras
    from keras import ops

    network, head = predictor.network_and_head
    outputs = ops.cast(_with_convertible_layers(network)(inputs), "float32")
    if head is None:
        probability = ops.clip(outputs[:, -1], *(1 / (1 + np.exp(sign * LIMIT)) for sign in (1, -1)))
        return ops.log(probability) - ops.log(1 - probability)
    weights, bias = head
    if weights.shape[1] == 2:  # the log odds of a softmax of two are a difference
        weights, bias = weights[:, 1:] - weights[:, :1], bias[1:] - bias[:1]
    last = keras.layers.Dense(1, dtype="float32")
    log_odds_of_images = last(outputs)
    last.set_weights([weights, bias])
    return ops.reshape(log_odds_of_images, (-1,))


def _with_convertible_layers(network: Any) -> Any:
    """Replace what cannot be converted by equal layers; the same network if there is nothing to replace.

    The statistics of a Normalization layer are no weights, and the converter would make inputs of them.
    """
    import keras

    if not any(isinstance(layer, keras.layers.Normalization) for layer in network.layers):
        return network

    def convertible(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Normalization):
            return layer.__class__.from_config(layer.get_config())
        mean, variance = (keras.ops.convert_to_numpy(values) for values in (layer.mean, layer.variance))
        scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        return keras.layers.Rescaling(scale.ravel().tolist(), (-mean * scale).ravel().tolist(), name=layer.name)

    clone = keras.models.clone_model(network, clone_function=convertible)
    clone.set_weights(network.get_weights())
    return clone

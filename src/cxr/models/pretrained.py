"""Networks of Keras Applications as flat backbones: input scaling, weights, and the heads of S3 and S4.

A network is ``image -> scaling -> backbone -> head``, all in one flat functional model. The layers of the head
are named ``head_...`` and ``probability``; every other layer with weights is the backbone's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from keras import layers

from cxr.errors import ParameterError
from cxr.models.backend import keras_home
from cxr.models.blocks import dense, probability

SMALLEST = 32
"""Least side of an input that these networks can shrink, pixels."""
IMAGENET, NO_WEIGHTS = "imagenet", "none"
SUFFIXES = (".h5",)


@dataclass(frozen=True)
class Backbone:
    """A network of Keras Applications and the input that its published weights were trained on.

    Attributes:
        application: its name in ``keras.applications``.
        scale: what an input in [0, 1] is multiplied by.
        offset: what is added then, per channel or for all. Channels are in the order that the weights expect;
            as a radiograph is grey in all of them, their order needs no change.
        options: further arguments of its builder.
    """

    application: str
    scale: float | Sequence[float]
    offset: float | Sequence[float] = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    def features(self, inputs: Any, weights: str) -> Any:
        """Apply the backbone, without its classifier.

        Args:
            inputs: input tensor ``(batch, height, width, 3)``, float32 in [0, 1].
            weights: ``"imagenet"``, ``"none"`` (drawn from the seed) or a file.

        Returns:
            Feature map ``(batch, height / 32, width / 32, channels)``.

        Raises:
            ParameterError: if the input does not suit the network, or the weights cannot be had or do not fit.
        """
        shape = tuple(inputs.shape[1:])
        problems = []
        if shape[-1] != 3:
            problems.append(
                f"expected three channels for {self.application}, received input_shape={shape}; "
                "set channels: 3 in the recipe"
            )
        if min(shape[:2]) < SMALLEST:
            problems.append(
                f"expected an input of at least {SMALLEST} x {SMALLEST} pixels for {self.application}, "
                f"received input_shape={shape}; take a larger recipe size"
            )
        if problems:
            raise ParameterError(problems)
        source = self._with_weights(shape, weights) if weights != NO_WEIGHTS else None
        scaled = layers.Rescaling(_plain(self.scale), _plain(self.offset), name="scaling")(inputs)
        network = self._build(weights=None, input_tensor=scaled)
        if source is not None:
            network.set_weights(source.get_weights())
            for layer in network.layers:
                if isinstance(layer, layers.Dropout):
                    layer.rate = 0.0  # stochastic depth is for training from the start, not for frozen layers
        return network.output

    def _build(self, **where: Any) -> keras.Model:
        builder = getattr(keras.applications, self.application)
        return builder(include_top=False, **self.options, **where)

    def _with_weights(self, shape: tuple[int, ...], weights: str) -> keras.Model:
        """The network by itself, as its weights' file knows it."""
        if weights == IMAGENET:
            try:
                return self._build(weights=IMAGENET, input_shape=shape)
            except Exception as error:
                # Keras raises a bare Exception when it cannot download.
                if "URL fetch failure" not in str(error):
                    raise
                raise ParameterError([_not_fetched(str(error))]) from error
        path = Path(weights)
        if not path.is_file():
            raise ParameterError(
                [f"expected weights to be imagenet, none or a file, received weights={weights} (no such file)"]
            )
        if path.suffix not in SUFFIXES:
            raise ParameterError(
                [f"expected a file of weights, *.weights.h5 or *.h5, received weights={weights}; see the guide"]
            )
        network = self._build(weights=None, input_shape=shape)
        try:
            with warnings.catch_warnings():
                # Keras only warns about layers that it finds no weights for.
                warnings.simplefilter("error", UserWarning)
                network.load_weights(path)
        except (ValueError, KeyError, OSError, UserWarning) as error:
            raise ParameterError(
                [
                    f"expected weights of {self.application} without its classifier ({network.count_params():,} "
                    f"numbers), received weights={weights}, which do not fit: {str(error).splitlines()[0][:200]}"
                ]
            ) from error
        return network


def source_head_s3(x: Any, dropout: float, *, batch_normalisation: bool) -> Any:
    """S3's head: flatten, dense 128, 256 and 256, each with dropout, sigmoid.

    Args:
        x: feature map ``(batch, height, width, channels)``.
        dropout: share of units dropped after each dense layer; the source's is 0.2.
        batch_normalisation: whether the dense layers are normalised.

    Returns:
        ``(batch, 1)`` sigmoid.
    """
    x = layers.Flatten(name="head_flatten")(x)
    return _dense_layers(x, (128, 256, 256), dropout, batch_normalisation)


def source_head_s4(x: Any, dropout: float, *, batch_normalisation: bool) -> Any:
    """S4's head: global average pool, dense 1024 and 512, sigmoid.

    Args:
        x: feature map ``(batch, height, width, channels)``.
        dropout: share of units dropped after each dense layer; the source has none.
        batch_normalisation: whether the dense layers are normalised.

    Returns:
        ``(batch, 1)`` sigmoid.
    """
    x = layers.GlobalAveragePooling2D(name="head_average")(x)
    return _dense_layers(x, (1024, 512), dropout, batch_normalisation)


def _dense_layers(x: Any, units: Sequence[int], dropout: float, batch_normalisation: bool) -> Any:
    for number, width in enumerate(units, start=1):
        x = dense(x, width, f"head_dense{number}", batch_normalisation=batch_normalisation)
        if dropout:
            x = layers.Dropout(dropout, name=f"head_dropout{number}")(x)
    return probability(x)


def backbone_layers(network: keras.Model) -> list[Any]:
    """Layers of a network that pretrained weights are for.

    Args:
        network: a network of this module, or one without a backbone.

    Returns:
        The layers between the scaling and the head, in order; empty for a network without a backbone.
    """
    names = [layer.name for layer in network.layers]
    if "scaling" not in names:
        return []
    inner = network.layers[names.index("scaling") + 1 :]
    return [layer for layer in inner if not layer.name.startswith("head_") and layer.name != "probability"]


def _plain(values: float | Sequence[float]) -> Any:
    return list(values) if isinstance(values, Sequence) else values


def _not_fetched(problem: str) -> str:
    origin, _, reason = problem.partition("URL fetch failure on ")[2].partition(": ")
    name = origin.rpartition("/")[2]
    return (
        f"expected the ImageNet weights {name}, received weights=imagenet, but they are not in "
        f"{keras_home() / 'models'} and could not be fetched ({reason or problem}); put that file there, "
        "or give one with weights: FILE, or train the whole network from its seed with weights: none"
    )

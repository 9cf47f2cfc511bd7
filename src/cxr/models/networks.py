"""Networks by name: one file per source system, each a builder of a flat, functional ``keras.Model``.

Every network takes ``(batch, height, width, channels)`` float32 in [0, 1] and returns either ``(batch, 1)``, the
sigmoid probability of pneumonia, or ``(batch, 2)``, the softmax over (NORMAL, PNEUMONIA): the last column is the
probability of pneumonia in both.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from cxr.errors import ParameterError

BUILDERS: dict[str, str] = {
    "residual_separable": "S0: residual network of separable convolutions, 157,010 parameters at 299x299x3",
    "shallow": "S1: two convolutions and a dense layer, for 64x64x3",
    "three_block": "S2: three 5x5 convolution blocks, for 64x64x1",
    "resnet50v2": "S3: ResNet50V2 with dense layers 128, 256 and 256, for 300x300x3",
    "plain_cnn": "S4: convolutions 32, 64, 128 and a dense layer, for 224x224x3",
    "vgg16": "S4: VGG16 with dense layers 1024 and 512, for 224x224x3",
    "resnet50": "S4: ResNet50 with dense layers 1024 and 512, for 224x224x3",
    "densenet121": "DenseNet121 with S4's head",
    "efficientnetv2b0": "EfficientNetV2-B0 with S4's head",
    "mobilenetv2": "MobileNetV2 with S4's head",
}
"""Name of the network, which is also its module, to one line about it."""

PRETRAINED = frozenset({"resnet50v2", "vgg16", "resnet50", "densenet121", "efficientnetv2b0", "mobilenetv2"})
"""Networks that pretrained weights exist for."""

NORMALISED = frozenset({"residual_separable"})
"""Networks whose source already normalises each convolution."""


def check_name(architecture: str) -> str:
    """Refuse a network that does not exist, listing those that do.

    Args:
        architecture: name of a network.

    Returns:
        The same name.

    Raises:
        ValueError: if there is no such network.
    """
    if architecture not in BUILDERS:
        raise ValueError(f"one of {', '.join(BUILDERS)}")
    return architecture


def build(
    architecture: str,
    input_shape: tuple[int, int, int],
    *,
    dropout: float | None = None,
    batch_normalisation: bool | None = None,
    weights: str = "none",
) -> Any:
    """Build a network.

    Args:
        architecture: a key of :data:`BUILDERS`.
        input_shape: (height, width, channels) in pixels.
        dropout: share of units dropped before the last layer, in [0, 1); the source's own value if None.
        batch_normalisation: whether its own layers are normalised; as the source has it if None.
        weights: ``"imagenet"``, ``"none"`` (drawn from the seed) or a file, for a network of :data:`PRETRAINED`.

    Returns:
        A flat, functional ``keras.Model``.

    Raises:
        ParameterError: if the name is unknown, the input is too small for the network, or it has no such option.
    """
    problems = check_options(architecture, batch_normalisation, weights)
    if problems:
        raise ParameterError(problems)
    options: dict[str, Any] = {"dropout": dropout, "batch_normalisation": batch_normalisation}
    given = {name: value for name, value in options.items() if value is not None}
    if architecture in PRETRAINED:
        given["weights"] = weights
    builder: Callable[..., Any] = import_module(f"cxr.models.{architecture}").build
    try:
        return builder(input_shape, **given)
    except ValueError as error:
        raise ParameterError(
            [f"expected an input that {architecture} can pool, received {input_shape=}; take a larger recipe size"]
        ) from error


def check_options(architecture: str, batch_normalisation: bool | None, weights: str) -> list[str]:
    """Find options that a network does not have.

    Args:
        architecture: name of a network.
        batch_normalisation: as for :func:`build`.
        weights: as for :func:`build`.

    Returns:
        One sentence per problem.
    """
    if architecture not in BUILDERS:
        return [f"expected architecture to be one of {', '.join(BUILDERS)}, received {architecture=}"]
    problems = []
    if weights != "none" and architecture not in PRETRAINED:
        problems.append(
            f"expected weights=none for {architecture}, which nobody has pretrained, received {weights=}; "
            f"networks with weights are {', '.join(sorted(PRETRAINED))}"
        )
    if batch_normalisation is not None and architecture in NORMALISED:
        problems.append(
            f"expected batch_normalisation=null for {architecture}, which normalises every convolution, "
            f"received {batch_normalisation=}"
        )
    return problems

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
    "plain_cnn": "S4: convolutions 32, 64, 128 and a dense layer, for 224x224x3",
}
"""Name of the network, which is also its module, to one line about it."""


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


def build(architecture: str, input_shape: tuple[int, int, int], *, dropout: float | None = None) -> Any:
    """Build an untrained network.

    Args:
        architecture: a key of :data:`BUILDERS`.
        input_shape: (height, width, channels) in pixels.
        dropout: share of units dropped before the last layer, in [0, 1); the source's own value if None.

    Returns:
        A flat, functional ``keras.Model``.

    Raises:
        ParameterError: if the name is unknown or the input is too small for the network.
    """
    try:
        check_name(architecture)
    except ValueError as error:
        raise ParameterError([f"expected architecture to be {error}, received {architecture=}"]) from None
    builder: Callable[..., Any] = import_module(f"cxr.models.{architecture}").build
    try:
        return builder(input_shape) if dropout is None else builder(input_shape, dropout=dropout)
    except ValueError as error:
        raise ParameterError(
            [f"expected an input that {architecture} can pool, received {input_shape=}; take a larger recipe size"]
        ) from error

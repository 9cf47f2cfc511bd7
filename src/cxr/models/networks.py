"""Networks by name, each a flat, functional ``keras.Model``.

A network that is trained from its seed is one file of this folder with a function ``build``. Its keyword arguments
are the options that the network has. A network with pretrained weights is a row of
:data:`cxr.models.pretrained_networks.PRETRAINED_NETWORKS`.

Every network takes ``(batch, height, width, channels)`` float32 in [0, 1] and returns either ``(batch, 1)``, the
sigmoid probability of pneumonia, or ``(batch, 2)``, the softmax over (NORMAL, PNEUMONIA): the last column is the
probability of pneumonia in both.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from cxr.errors import ParameterError
from cxr.models.pretrained_networks import PRETRAINED_NETWORKS


def _read_builders() -> dict[str, frozenset[str]]:
    """Find the networks of this folder and their options. The files are parsed: importing them would import Keras."""
    builders = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == "build":
                builders[path.stem] = frozenset(argument.arg for argument in node.args.kwonlyargs)
    return builders


_OPTIONS = _read_builders() | {
    # What is normalised are the dense layers of the head.
    name: frozenset({"dropout", "batch_normalisation"} if network.head.units else {"dropout"})
    for name, network in PRETRAINED_NETWORKS.items()
}

NETWORKS = tuple(_OPTIONS)
"""Names of all networks."""


def check_architecture(architecture: str) -> str:
    """Refuse a network that does not exist.

    Args:
        architecture: name of a network.

    Returns:
        The same name.

    Raises:
        ValueError: if there is no such network; the message lists those that exist.
    """
    if architecture not in NETWORKS:
        raise ValueError(f"one of {', '.join(NETWORKS)}")
    return architecture


def build_network(
    architecture: str,
    input_shape: tuple[int, int, int],
    *,
    dropout: float | None = None,
    batch_normalisation: bool | None = None,
    weights: str = "none",
) -> Any:
    """Build a network.

    Args:
        architecture: one of :data:`NETWORKS`.
        input_shape: (height, width, channels) in pixels.
        dropout: share of units dropped before the last layer, in [0, 1); None takes the value of the source.
        batch_normalisation: whether the network's own layers are normalised; None takes it as the source has it.
        weights: ``"imagenet"``, ``"none"`` (drawn from the seed) or a file, for a network with pretrained weights.

    Returns:
        A flat, functional ``keras.Model``.

    Raises:
        ParameterError: if the name is unknown, the input is too small for the network, or it has no such option.
        InstallationError: if the package with the weights of this network is not installed.
    """
    problems = option_problems(architecture, dropout, batch_normalisation, weights)
    if problems:
        raise ParameterError(problems)
    options: dict[str, Any] = {
        name: value
        for name, value in (("dropout", dropout), ("batch_normalisation", batch_normalisation))
        if value is not None
    }
    try:
        if architecture in PRETRAINED_NETWORKS:
            from cxr.models.pretrained import build_pretrained

            return build_pretrained(architecture, input_shape, weights=weights, **options)
        return import_module(f"cxr.models.{architecture}").build(input_shape, **options)
    except ValueError as error:
        raise ParameterError(
            [f"expected an input that {architecture} can pool, received {input_shape=}; take a larger recipe size"]
        ) from error


def option_problems(
    architecture: str, dropout: float | None, batch_normalisation: bool | None, weights: str
) -> list[str]:
    """Find options that a network does not have.

    Args:
        architecture: name of a network.
        dropout: as for :func:`build_network`.
        batch_normalisation: as for :func:`build_network`.
        weights: as for :func:`build_network`.

    Returns:
        One sentence per problem.
    """
    if architecture not in NETWORKS:
        return [f"expected architecture to be one of {', '.join(NETWORKS)}, received {architecture=}"]
    problems = []
    if weights != "none" and architecture not in PRETRAINED_NETWORKS:
        problems.append(
            f"expected weights=none for {architecture}, which nobody has pretrained, received {weights=}; "
            f"networks with weights are {', '.join(sorted(PRETRAINED_NETWORKS))}"
        )
    problems += [
        f"expected {name}=null for {architecture}, which has no such option, received {name}={value}"
        for name, value in (("dropout", dropout), ("batch_normalisation", batch_normalisation))
        if value is not None and name not in _OPTIONS[architecture]
    ]
    return problems

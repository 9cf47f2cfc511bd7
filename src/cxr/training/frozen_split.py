"""Splits a network where its frozen part ends, so that only the second part is trained, on stored activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class FrozenSplit:
    """Two networks that together are the original one; their layers are the same objects.

    Attributes:
        frozen: from the image to the input of the trained part: one tensor, or several where a shortcut crosses the
            split.
        trained: from there to the probability. It holds every layer that training changes or that draws random
            numbers.
    """

    frozen: keras.Model
    trained: keras.Model


def split_frozen_part(network: keras.Model) -> FrozenSplit | None:
    """Split a network after the layers that training does not change.

    A layer belongs to the trained part if it has trainable weights, draws random numbers (dropout), or follows such a
    layer. Other layers, such as a pooling layer above a frozen backbone, go to the frozen part, so that the stored
    activations are as small as possible.

    Args:
        network: flat functional network whose ``trainable`` flags are set.

    Returns:
        The split, or None if no layer with weights is frozen below the first layer that changes.
    """
    layer_of: dict[int, Any] = {}
    changes: dict[int, bool] = {}
    boundary: dict[int, Any] = {}
    for tensor in _tensors_up_to(network.outputs[0]):
        layer, inputs = _layer_and_inputs(tensor)
        layer_of[id(tensor)] = layer
        changes[id(tensor)] = _changes_in_training(layer) or any(changes[id(source)] for source in inputs)
        if changes[id(tensor)]:
            boundary |= {id(source): source for source in inputs if not changes[id(source)]}
    stored = list(boundary.values())
    frozen_ids = {id(tensor) for output in stored for tensor in _tensors_up_to(output)}
    if not any(layer_of[key].weights for key in frozen_ids if hasattr(layer_of[key], "weights")):
        return None
    middle = tuple(stored) if len(stored) > 1 else stored[0]
    return FrozenSplit(
        keras.Model(network.inputs[0], middle, name=f"{network.name}_frozen"),
        keras.Model(middle, network.outputs[0], name=network.name),
    )


def _changes_in_training(layer: Any) -> bool:
    is_random = getattr(layer, "seed_generator", None) is not None and getattr(layer, "rate", 1.0) > 0
    return is_random or bool(getattr(layer, "trainable_weights", ()))


def _layer_and_inputs(tensor: Any) -> tuple[Any, list[Any]]:
    """The layer that made a tensor, and the tensors that the layer took."""
    layer, node, _ = tensor._keras_history
    return layer, list(layer._inbound_nodes[node].input_tensors)


def _tensors_up_to(last: Any) -> list[Any]:
    """A tensor and all tensors that it is computed from, each after its own inputs."""
    ordered: list[Any] = []
    visited: set[int] = set()
    stack = [(last, False)]
    while stack:
        tensor, inputs_done = stack.pop()
        if inputs_done:
            ordered.append(tensor)
        elif id(tensor) not in visited:
            visited.add(id(tensor))
            stack.append((tensor, True))
            stack += [(source, False) for source in _layer_and_inputs(tensor)[1]]
    return ordered

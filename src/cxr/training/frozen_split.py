"""Cutting a network where its frozen part ends, so that only the rest is trained on stored activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Cut:
    """Two networks that together are the one that was cut; their layers are the same objects.

    Attributes:
        frozen: from the image to what the rest takes: one tensor, or several where a shortcut crosses the cut.
        rest: from there to the probability; everything that training changes or draws at random is in it.
    """

    frozen: keras.Model
    rest: keras.Model


def cut(network: keras.Model) -> Cut | None:
    """Cut a network after the layers that training leaves as they are.

    A layer belongs to the rest if it has trainable weights, draws random numbers (dropout), or follows such a
    layer. Layers without either, such as a pooling layer above a frozen backbone, go to the frozen part, so that
    as little as possible is stored.

    Args:
        network: flat functional network whose ``trainable`` flags are set.

    Returns:
        The cut, or None if nothing with weights is frozen below the first layer that changes.
    """
    history: dict[int, Any] = {}
    changes: dict[int, bool] = {}
    frontier: dict[int, Any] = {}
    order = _tensors(network.outputs[0])
    for tensor in order:
        operation, inputs = _origin(tensor)
        history[id(tensor)] = operation
        changes[id(tensor)] = _changes(operation) or any(changes[id(one)] for one in inputs)
        if changes[id(tensor)]:
            frontier |= {id(one): one for one in inputs if not changes[id(one)]}
    stored = list(frontier.values())
    below = {id(one) for tensor in stored for one in _tensors(tensor)}
    if not any(history[key].weights for key in below if hasattr(history[key], "weights")):
        return None
    middle = tuple(stored) if len(stored) > 1 else stored[0]
    return Cut(
        keras.Model(network.inputs[0], middle, name=f"{network.name}_frozen"),
        keras.Model(middle, network.outputs[0], name=network.name),
    )


def _changes(layer: Any) -> bool:
    random = getattr(layer, "seed_generator", None) is not None and getattr(layer, "rate", 1.0) > 0
    return random or bool(getattr(layer, "trainable_weights", ()))


def _origin(tensor: Any) -> tuple[Any, list[Any]]:
    """Layer that made a tensor, and what it was made of."""
    operation, node, _ = tensor._keras_history
    return operation, list(operation._inbound_nodes[node].input_tensors)


def _tensors(last: Any) -> list[Any]:
    """A tensor and all that it is made of, each after its own inputs."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [(last, False)]
    while waiting:
        tensor, ready = waiting.pop()
        if ready:
            found.append(tensor)
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            waiting.append((tensor, True))
            waiting += [(one, False) for one in _origin(tensor)[1]]
    return found

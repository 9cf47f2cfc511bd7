"""Grad-CAM (Selvaraju et al. 2017): where in a radiograph a network sees evidence for pneumonia.

Which layer
    The last one whose output is a map ``(batch, height, width, channels)`` of more than one position, and which
    does not only pool or drop: behind it, place is lost or coarser. In VGG16 that is the last convolution, in a
    residual network the sum that ends its last block.

What is differentiated
    The log odds of pneumonia: the probability itself is flat where the network is sure. With a softmax of two they
    are the difference of its two inputs.

Gradients stay where they are
    The paper averages them over the map. Where the head pools the whole map that changes nothing. Where it flattens
    the map (``three_block``, ``shallow``, ``plain_cnn``, ``resnet50v2``) averaging forgets which places count, and
    the heat lies on whatever is bright: ``benchmarks/explanation.py`` measures it. So features are multiplied with
    their own gradient (HiResCAM, Draelos and Carin 2020, arXiv:2011.08891), unless the paper's way is asked for.

Where the heat is drawn
    At the centres of what the map's positions see. A convolution without padding moves them inwards: stretching the
    map over the whole picture would draw the heat of ``three_block`` up to a fifth of the picture's width too far out.
    Each position is drawn as a spot (Gaussian) as wide as the distance to the next one: a max-pool leaves gradients
    at single positions, which would look sharper than the network sees.

An ensemble
    Adds log odds by ``weight / temperature`` of its members, and so are their maps added, before negative values are
    cut off: evidence of one member against pneumonia counts against that of another for it. For this a map is in
    log odds per area of the picture, whatever its number of positions. The ensemble's own temperature changes all
    of it alike, and falls out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np

from cxr.errors import DataError
from cxr.inference.predictor import PooledPredictor, Predictor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cxr.images.recipes import Recipe

OPACITY = 0.5
"""Of the strongest heat in an overlay, unless told."""


def grad_cam(predictor: Predictor, grey: NDArray[np.uint8], *, averaged: bool = False) -> NDArray[np.float32]:
    """Find where a network, or an ensemble, sees evidence for pneumonia.

    The first call for a predictor is slower: it parts the network, and keeps the parts as long as the predictor is
    there.

    Args:
        predictor: the network with its recipe, or an ensemble; it needs no calibration unless it is an ensemble.
        grey: decoded picture, ``(height, width)``, uint8, 0 black to 255 white.
        averaged: average the gradients over the map, as the paper does.

    Returns:
        ``(height, width)`` float32. 1 is the strongest evidence in this picture, so that heats of two pictures
        can't be compared; 0 is none, or evidence against. All zeros mean that nothing speaks for pneumonia.

    Raises:
        DataError: if a network has no map of features, or doesn't end in a sigmoid or a softmax of two.
    """
    from cxr.images.recipes import apply

    prepared = {recipe: apply(recipe, grey)[np.newaxis] for recipe in predictor.recipes}
    heat = np.maximum(_evidence(predictor, prepared, grey.shape, averaged), np.float32(0))
    strongest = heat.max()
    return heat / strongest if strongest > 0 else heat


def overlay(grey: NDArray[np.uint8], heat: NDArray[np.float32], opacity: float = OPACITY) -> NDArray[np.uint8]:
    """Colour a picture by heat, in viridis: blue to yellow, in order also for colour-blind readers and in print.

    Args:
        grey: the picture, ``(height, width)``, uint8.
        heat: ``(height, width)``, 0 to 1; where it is 0, the picture stays grey.
        opacity: of the colour where the heat is 1; 0 to 1, less heat is more transparent in proportion.

    Returns:
        ``(height, width, 3)`` uint8: red, green, blue.
    """
    levels = np.rint(255 * heat).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    share = (opacity * heat)[..., np.newaxis]
    mixed: NDArray[np.uint8] = np.rint(grey[..., np.newaxis] * (1 - share) + colour * share).astype(np.uint8)
    return mixed


@dataclass(frozen=True)
class _Axis:
    """Where along one side of the network's input the positions of a map look at, in pixels."""

    first: float
    step: float

    def through(self, layer: Any, axis: int, before: int, after: int) -> _Axis:
        """The same for the next layer's output, which has ``after`` positions instead of ``before``."""
        kernel, stride = (_of_axis(layer, names, axis) for names in (("kernel_size", "pool_size"), ("strides",)))
        padding = getattr(layer, "padding", None)
        if kernel is not None and stride is not None and padding in ("valid", "same"):
            reach = (kernel - 1) * (_of_axis(layer, ("dilation_rate",), axis) or 1)
            padded = max((after - 1) * stride + reach + 1 - before, 0) // 2 if padding == "same" else 0
            return _Axis(self.first + self.step * (reach / 2 - padded), self.step * stride)
        if kernel is None and isinstance(padding, tuple):  # a layer that only pads
            return _Axis(self.first - self.step * padding[axis][0], self.step)
        shrink = before / after
        return _Axis(self.first + self.step * (shrink - 1) / 2, self.step * shrink)

    def spots(self, positions: int, side: int, pixels: int) -> NDArray[np.float32]:
        """How strongly each position is drawn at each pixel of a picture's side, ``(pixels, positions)``.

        ``pixels`` of the picture were resized to ``side`` of the network's input. A column's mean over the picture is
        the same for all maps, but for what falls over the edge.
        """
        place = ((np.arange(pixels) + 0.5) * side / pixels - self.first) / self.step
        spots = np.exp(-((place[:, np.newaxis] - np.arange(positions)) ** 2) / 2)
        return (spots * side / self.step).astype(np.float32)


@dataclass(frozen=True)
class _Parted:
    """A network parted at its last map of features.

    Attributes:
        front: Keras model from the image to the map.
        gradient: from the map to the gradient of the log odds at it.
        axes: where the map's rows and columns look at.
    """

    front: Any
    gradient: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    axes: tuple[_Axis, _Axis]

    def evidence(self, image: NDArray[np.float32], shape: tuple[int, ...], averaged: bool) -> NDArray[np.float32]:
        """Log odds per area of the picture, ``(height, width)`` as ``shape`` says; negative is against pneumonia."""
        features = np.asarray(self.front.predict_on_batch(image), np.float32)
        gradient = self.gradient(features)
        if averaged:
            gradient = gradient.mean(axis=(1, 2), keepdims=True)
        found = (features * gradient)[0].sum(axis=-1)
        rows, columns = (
            axis.spots(positions, side, pixels)
            for axis, positions, side, pixels in zip(self.axes, found.shape, image.shape[1:3], shape, strict=True)
        )
        drawn: NDArray[np.float32] = rows @ found @ columns.T
        return drawn


_parted: WeakKeyDictionary[Predictor, _Parted] = WeakKeyDictionary()
_parting = threading.Lock()


def _evidence(
    predictor: Predictor, prepared: Mapping[Recipe, NDArray[np.uint8]], shape: tuple[int, ...], averaged: bool
) -> NDArray[np.float32]:
    from cxr.images.recipes import as_input

    if isinstance(predictor, PooledPredictor):
        found = np.zeros(shape, np.float32)
        for own, member in zip(predictor.card.pooled, predictor.members, strict=True):
            temperature = member.card.temperature or 1.0
            found += np.float32(own.weight / temperature) * _evidence(member, prepared, shape, averaged)
        return found
    with _parting:
        parts = _parted.get(predictor)
        if parts is None:
            parts = _parted[predictor] = _part(predictor)
    return parts.evidence(as_input(prepared[predictor.recipe], predictor.recipe), shape, averaged)


def _part(predictor: Predictor) -> _Parted:
    import keras

    from cxr.models.backend import gradient_of

    network, direction = predictor.logit_head
    features = _last_map(network.outputs[0])
    if features is None:
        raise DataError(
            f"expected a network with a map of features before its last layers, received model={predictor.card.model} "
            f"with layers={', '.join(layer.name for layer in network.layers)}; Grad-CAM needs a convolution"
        )
    axes = _axis(features, 0), _axis(features, 1)
    front = keras.Model(network.inputs, features)
    try:
        back = keras.Model(features, network.outputs[0])
    except ValueError as error:
        raise DataError(
            f"expected a network whose answer depends on the image through its last map only, received "
            f"model={predictor.card.model}, which has a way around it; Grad-CAM needs one map that all goes through"
        ) from error
    towards = keras.ops.convert_to_tensor(direction[np.newaxis].astype(np.float32))

    def log_odds(tensor: Any) -> Any:
        return keras.ops.sum(keras.ops.cast(back(tensor, training=False), "float32") * towards)

    return _Parted(front, gradient_of(log_odds), axes)


def _origin(tensor: Any) -> tuple[Any, list[Any]]:
    """Layer that made a tensor, and its inputs; of several inputs those with the largest map."""
    layer, node, _ = tensor._keras_history
    inputs = layer._inbound_nodes[node].input_tensors
    largest = max((_positions(one) for one in inputs), default=0)
    return layer, [one for one in inputs if _positions(one) == largest]


def _positions(tensor: Any) -> int:
    return int(tensor.shape[1] * tensor.shape[2]) if len(tensor.shape) == 4 else 0


def _last_map(tensor: Any) -> Any:
    """The last map of features on the way to a tensor that still has all the places that its layer saw, or None."""
    from keras import layers

    lossy = (layers.MaxPooling2D, layers.AveragePooling2D, layers.Dropout, layers.SpatialDropout2D)
    layer, inputs = _origin(tensor)
    while inputs and (_positions(tensor) < 2 or isinstance(layer, lossy)):
        tensor = inputs[0]
        layer, inputs = _origin(tensor)
    return tensor if inputs else None


def _axis(features: Any, axis: int) -> _Axis:
    """Where the positions of a map look at; ways that differ, such as a block and its shortcut, count alike."""
    found: dict[int, _Axis] = {}
    waiting = [features]
    while waiting:
        layer, sources = _origin(waiting[-1])
        missing = [one for one in sources if id(one) not in found]
        if missing:
            waiting += missing
            continue
        tensor, side = waiting.pop(), 1 + axis
        ways = [found[id(one)].through(layer, axis, one.shape[side], tensor.shape[side]) for one in sources]
        found[id(tensor)] = replace(ways[0], first=fmean(way.first for way in ways)) if ways else _Axis(0.5, 1.0)
    return found[id(features)]


def _of_axis(layer: Any, names: tuple[str, ...], axis: int) -> int | None:
    values = next((getattr(layer, name) for name in names if getattr(layer, name, None) is not None), None)
    return values if values is None or isinstance(values, int) else int(values[axis])

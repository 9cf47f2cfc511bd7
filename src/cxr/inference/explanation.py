"""Grad-CAM (Selvaraju et al. 2017): where in a radiograph a network sees evidence for pneumonia.

Which layer
    The last layer whose output is a feature map ``(batch, height, width, channels)`` with more than one position and
    that does more than pool or drop. Later layers have coarser positions or none. In VGG16 it is the last
    convolution, in a residual network the sum at the end of the last block.

What is differentiated
    The log odds of pneumonia, because the probability hardly changes where the network is sure. For a softmax of two
    the log odds are the difference of its two inputs.

Gradients keep their positions
    The paper averages the gradients over the feature map. Where the head pools the whole map, this changes nothing.
    Where the head flattens the map (``three_block``, ``shallow``, ``plain_cnn``, ``resnet50v2``), averaging forgets
    which positions count, and the heat covers whatever is bright (measured by ``benchmarks/explanation.py``). So
    features are multiplied by their own gradient (HiResCAM, Draelos and Carin 2020, arXiv:2011.08891), unless
    ``average_gradients`` asks for the paper's way.

Where the heat is drawn
    At the centres of the receptive fields of the map's positions. A convolution without padding moves these centres
    inwards: if the map were stretched over the whole image, the heat of ``three_block`` would be up to a fifth of the
    image's width too far out. Each position is drawn as a Gaussian as wide as the distance to the next position,
    because a max-pool leaves gradients at single positions, which would look sharper than the network sees.

Ensembles
    An ensemble adds the log odds of its members by ``weight / temperature``. Their maps are added in the same way
    before negative values are cut off, so that evidence of one member against pneumonia counts against evidence of
    another member for it. For this, a map is in log odds per area of the image, whatever its number of positions.
    The ensemble's own temperature scales the whole map and has no effect.

Mirrored prediction
    A model that predicts from an image and its mirror image averages two log odds. Its map is the mean of both maps,
    the second one mirrored back.
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
from cxr.inference.predictor import EnsemblePredictor, Predictor, mirror

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cxr.images.recipes import Placement, Recipe

MIN_REGION = 0.002
"""Share of the image below which a region gets no outline."""


def grad_cam(predictor: Predictor, grey: NDArray[np.uint8], *, average_gradients: bool = False) -> NDArray[np.float32]:
    """Compute where a network, or an ensemble, sees evidence for pneumonia.

    The first call for a predictor is slower: it splits the network and keeps the parts as long as the predictor
    exists.

    Args:
        predictor: the network with its recipe, or an ensemble; only the members of an ensemble must be calibrated.
        grey: decoded image, ``(height, width)``, uint8, 0 black to 255 white.
        average_gradients: average the gradients over the feature map, as the paper does.

    Returns:
        ``(height, width)`` float32. 1 is the strongest evidence in this image, so heat maps of two images can't be
        compared; 0 is no evidence, or evidence against pneumonia. All zeros: nothing speaks for pneumonia.

    Raises:
        DataError: if a network has no feature map, or doesn't end in a sigmoid or a softmax of two.
    """
    from cxr.images.recipes import apply_recipe

    prepared = {recipe: apply_recipe(recipe, grey) for recipe in predictor.recipes}
    return grad_cam_of_prepared(predictor, prepared, grey.shape, average_gradients=average_gradients)


def grad_cam_of_prepared(
    predictor: Predictor,
    prepared: Mapping[Recipe, NDArray[np.uint8]],
    shape: tuple[int, ...],
    *,
    average_gradients: bool,
) -> NDArray[np.float32]:
    """Compute :func:`grad_cam` for an image that is prepared already.

    Args:
        predictor: the network with its recipe, or an ensemble.
        prepared: each recipe of the predictor to ``(size, size, planes)`` uint8.
        shape: ``(height, width)`` of the map; the ratio of the sides is that of the image.
        average_gradients: average the gradients over the feature map, as the paper does.

    Returns:
        ``shape`` float32, as :func:`grad_cam` returns it.

    Raises:
        DataError: as :func:`grad_cam`.
    """
    batches = {recipe: image[np.newaxis] for recipe, image in prepared.items()}
    heat = np.maximum(_log_odds_map(predictor, batches, shape, average_gradients), np.float32(0))
    strongest = heat.max()
    return heat / strongest if strongest > 0 else heat


def overlay(grey: NDArray[np.uint8], heat: NDArray[np.float32], opacity: float) -> NDArray[np.uint8]:
    """Colour an image by its heat map, with an outline around the regions that count most.

    The colour map is cividis, which looks nearly the same with colour blindness.

    Args:
        grey: the image, ``(height, width)``, uint8.
        heat: ``(height, width)``, 0 to 1; where it is 0, the image stays grey.
        opacity: opacity of the colour where the heat is 1, from 0 (invisible) to 1; less heat is more transparent in
            proportion.

    Returns:
        ``(height, width, 3)`` uint8: red, green, blue.
    """
    height, width = grey.shape
    clipped = np.clip(heat, 0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap(np.uint8(255 * clipped), cv2.COLORMAP_CIVIDIS), cv2.COLOR_BGR2RGB)
    alpha = (opacity * clipped)[..., np.newaxis]
    blended = np.asarray((1 - alpha) * grey[..., np.newaxis] + alpha * colours, dtype=np.uint8)
    if opacity > 0 and clipped.max() > 0:
        hottest = np.uint8(clipped >= 0.5 * clipped.max())
        contours, _ = cv2.findContours(hottest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        contours = [contour for contour in contours if cv2.contourArea(contour) >= MIN_REGION * height * width]
        thickness = max(2, max(height, width) // 250)
        cv2.drawContours(blended, contours, -1, (0, 0, 0), 2 * thickness, cv2.LINE_AA)
        cv2.drawContours(blended, contours, -1, (255, 255, 255), thickness, cv2.LINE_AA)
    return blended


@dataclass(frozen=True)
class _FieldCentres:
    """Centres of the receptive fields of a map's positions along one side of the network's input, in pixels.

    Attributes:
        first: centre of the first position.
        step: distance between two positions.
    """

    first: float
    step: float

    def after(self, layer: Any, axis: int, size_in: int, size_out: int) -> _FieldCentres:
        """The centres for a layer's output, which has ``size_out`` positions instead of ``size_in``."""
        kernel = _layer_value(layer, ("kernel_size", "pool_size"), axis)
        stride = _layer_value(layer, ("strides",), axis)
        padding = getattr(layer, "padding", None)
        if kernel is not None and stride is not None and padding in ("valid", "same"):
            reach = (kernel - 1) * (_layer_value(layer, ("dilation_rate",), axis) or 1)
            padded = max((size_out - 1) * stride + reach + 1 - size_in, 0) // 2 if padding == "same" else 0
            return _FieldCentres(self.first + self.step * (reach / 2 - padded), self.step * stride)
        if kernel is None and isinstance(padding, tuple):  # a layer that only pads
            return _FieldCentres(self.first - self.step * padding[axis][0], self.step)
        shrink = size_in / size_out
        return _FieldCentres(self.first + self.step * (shrink - 1) / 2, self.step * shrink)

    def gaussians(self, positions: int, source: slice, target: slice, pixels: int) -> NDArray[np.float32]:
        """How strongly each position is drawn at each pixel of an image's side, ``(pixels, positions)``.

        The pixels ``source`` of the image were resized to the pixels ``target`` of the network's input; nothing is
        drawn on the others. The mean of a column is the same for all feature maps, except for what lies outside the
        image.
        """
        length, resized = source.stop - source.start, target.stop - target.start
        in_steps = (target.start + (np.arange(length) + 0.5) * resized / length - self.first) / self.step
        gaussians = np.exp(-((in_steps[:, np.newaxis] - np.arange(positions)) ** 2) / 2)
        drawn = np.zeros((pixels, positions), np.float32)
        drawn[source] = gaussians * (resized * pixels / length) / self.step
        return drawn


@dataclass(frozen=True)
class _SplitNetwork:
    """A network that is split at its last feature map.

    Attributes:
        front: Keras model from the image to the feature map.
        gradient: from the feature map to the gradient of the log odds by it.
        centres: receptive-field centres of the map's rows and columns.
    """

    front: Any
    gradient: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    centres: tuple[_FieldCentres, _FieldCentres]

    def log_odds_map(
        self, image: NDArray[np.float32], placement: Placement, shape: tuple[int, ...], average_gradients: bool
    ) -> NDArray[np.float32]:
        """Log odds per area of the image, ``(height, width)`` as in ``shape``; negative is against pneumonia."""
        features = np.asarray(self.front.predict_on_batch(image), np.float32)
        gradient = self.gradient(features)
        if average_gradients:
            gradient = gradient.mean(axis=(1, 2), keepdims=True)
        contributions = (features * gradient)[0].sum(axis=-1)
        rows, columns = (
            centres.gaussians(positions, source, target, pixels)
            for centres, positions, source, target, pixels in zip(
                self.centres, contributions.shape, placement.source, placement.target, shape, strict=True
            )
        )
        drawn: NDArray[np.float32] = rows @ contributions @ columns.T
        return drawn


_split_networks: WeakKeyDictionary[Predictor, _SplitNetwork] = WeakKeyDictionary()
_split_lock = threading.Lock()


def _log_odds_map(
    predictor: Predictor,
    prepared: Mapping[Recipe, NDArray[np.uint8]],
    shape: tuple[int, ...],
    average_gradients: bool,
) -> NDArray[np.float32]:
    from cxr.images.recipes import to_network_input

    if isinstance(predictor, EnsemblePredictor):
        total = np.zeros(shape, np.float32)
        for entry, member in zip(predictor.metadata.weighted_members, predictor.members, strict=True):
            factor = np.float32(entry.weight / (member.metadata.temperature or 1.0))
            total += factor * _log_odds_map(member, prepared, shape, average_gradients)
        return total
    with _split_lock:
        split = _split_networks.get(predictor)
        if split is None:
            split = _split_networks[predictor] = _split_network(predictor)
    recipe, images = predictor.recipe, prepared[predictor.recipe]
    placement = recipe.placement(*shape)
    heat = split.log_odds_map(to_network_input(images, recipe), placement, shape, average_gradients)
    if not predictor.metadata.mirrored:
        return heat
    mirrored = split.log_odds_map(to_network_input(mirror(images), recipe), placement, shape, average_gradients)
    mean: NDArray[np.float32] = (heat + mirrored[:, ::-1]) / np.float32(2)
    return mean


def _split_network(predictor: Predictor) -> _SplitNetwork:
    import keras

    from cxr.models.backend import gradient_function

    network, direction = predictor.logit_head
    features = _last_feature_map(network.outputs[0])
    if features is None:
        raise DataError(
            f"expected a network with a feature map before its last layers, received "
            f"model={predictor.metadata.model} with layers={', '.join(layer.name for layer in network.layers)}; "
            "Grad-CAM needs a convolution"
        )
    centres = _field_centres(features, 0), _field_centres(features, 1)
    front = keras.Model(network.inputs, features)
    try:
        back = keras.Model(features, network.outputs[0])
    except ValueError as error:
        raise DataError(
            f"expected a network whose output depends on the image only through its last feature map, received "
            f"model={predictor.metadata.model}, which has a way around it; Grad-CAM needs one map that everything "
            "passes through"
        ) from error
    weights = keras.ops.convert_to_tensor(direction[np.newaxis].astype(np.float32))

    def log_odds(tensor: Any) -> Any:
        return keras.ops.sum(keras.ops.cast(back(tensor, training=False), "float32") * weights)

    return _SplitNetwork(front, gradient_function(log_odds), centres)


def _producer(tensor: Any) -> tuple[Any, list[Any]]:
    """Layer that produced a tensor, and its inputs; of several inputs those with the largest map."""
    layer, node, _ = tensor._keras_history
    inputs = layer._inbound_nodes[node].input_tensors
    largest = max((_positions(source) for source in inputs), default=0)
    return layer, [source for source in inputs if _positions(source) == largest]


def _positions(tensor: Any) -> int:
    return int(tensor.shape[1] * tensor.shape[2]) if len(tensor.shape) == 4 else 0


def _last_feature_map(tensor: Any) -> Any:
    """The last feature map on the way to a tensor that has all the positions that its layer saw; None without one."""
    from keras import layers

    lossy = (layers.MaxPooling2D, layers.AveragePooling2D, layers.Dropout, layers.SpatialDropout2D)
    layer, inputs = _producer(tensor)
    while inputs and (_positions(tensor) < 2 or isinstance(layer, lossy)):
        tensor = inputs[0]
        layer, inputs = _producer(tensor)
    return tensor if inputs else None


def _field_centres(features: Any, axis: int) -> _FieldCentres:
    """Receptive-field centres of a feature map; the mean of all ways to it, such as a block and its shortcut."""
    known: dict[int, _FieldCentres] = {}
    stack = [features]
    while stack:
        layer, sources = _producer(stack[-1])
        missing = [source for source in sources if id(source) not in known]
        if missing:
            stack += missing
            continue
        tensor, dimension = stack.pop(), 1 + axis
        ways = [
            known[id(source)].after(layer, axis, source.shape[dimension], tensor.shape[dimension]) for source in sources
        ]
        known[id(tensor)] = (
            replace(ways[0], first=fmean(way.first for way in ways)) if ways else _FieldCentres(0.5, 1.0)
        )
    return known[id(features)]


def _layer_value(layer: Any, names: tuple[str, ...], axis: int) -> int | None:
    """Value of the first of the attributes that the layer has, along an axis; None if it has none of them."""
    values = next((getattr(layer, name) for name in names if getattr(layer, name, None) is not None), None)
    return values if values is None or isinstance(values, int) else int(values[axis])

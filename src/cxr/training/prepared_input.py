"""The input of a training step: planes of 8 bits become the network's input on the device that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from cxr.images.recipes import Recipe
from cxr.training.device_augmentation import change_grey_levels, move

PLANES = "planes"
"""Prepared images ``(batch, height, width, planes)``, uint8."""

ROWS = "rows"
"""Instead of them, their positions ``(batch,)``, int32, among the images that lie on the device."""

MATRICES = "matrices"
"""How the device moves each image, see :func:`cxr.training.device_augmentation.move`."""

GREY_LEVEL_FACTORS = "grey_level_factors"
"""How the device changes grey levels, see :func:`cxr.training.device_augmentation.change_grey_levels`."""

PARTNERS = "partners"
"""For mixup: position ``(batch,)``, int32, in the batch of the image that each image is mixed with."""

SHARES = "shares"
"""For mixup: share ``(batch,)``, float32, of the image itself."""


def network_input(inputs: Mapping[str, Any] | Any, recipe: Recipe, images: Any = None) -> Any:
    """Make the input of a network from what a batch holds, through Keras operations.

    Scaling and channels are those of :func:`cxr.images.recipes.to_network_input`.

    Args:
        inputs: planes, or a mapping with :data:`PLANES` or :data:`ROWS`, and optionally the others above. Anything that
            is not of 8 bits, such as activations, is already a network's input and returned as it is.
        recipe: recipe of the images.
        images: ``(images, height, width, planes)``, uint8, on the device, for :data:`ROWS`.

    Returns:
        ``(batch, height, width, channels)``, float32 in [0, 1].
    """
    if isinstance(inputs, list | tuple) or (not isinstance(inputs, Mapping) and not _has_8_bits(inputs)):
        return inputs
    batch = inputs if isinstance(inputs, Mapping) else {PLANES: inputs}
    planes = batch[PLANES] if PLANES in batch else ops.take(images, batch[ROWS], axis=0)
    levels = ops.cast(planes, "float32")
    if MATRICES in batch:
        levels = move(levels, batch[MATRICES])
    if GREY_LEVEL_FACTORS in batch:
        levels = change_grey_levels(levels, batch[GREY_LEVEL_FACTORS])
    scaled = levels / 255
    if recipe.channels != recipe.planes:
        grey = ops.repeat(scaled[..., :1], recipe.channels - (recipe.planes - 1), axis=-1)
        scaled = grey if recipe.planes == 1 else ops.concatenate([grey, scaled[..., 1:]], axis=-1)
    if SHARES in batch:
        share = ops.reshape(batch[SHARES], (-1, 1, 1, 1))
        scaled = share * scaled + (1 - share) * ops.take(scaled, batch[PARTNERS], axis=0)
    return scaled


class PreparedInputNetwork(keras.Model):  # type: ignore[misc]  # keras ships no types
    """A network that takes prepared images as they are stored; it is trained and saved without this part.

    Scaling, channels, mixing and, where the batches leave it to the device, augmentation are part of the compiled step.
    A fraction of the bytes crosses to the device: 50 KB for an image of 224 pixels instead of 600 KB.

    Attributes:
        network: the network, from ``(batch, height, width, channels)`` float32 in [0, 1].
        recipe: recipe of the images.
        images: variable with the images that lie on the device, or None.
    """

    def __init__(
        self,
        network: keras.Model,
        recipe: Recipe,
        images: NDArray[np.uint8] | None = None,
        prepare_targets: Callable[[Any], Any] | None = None,
    ) -> None:
        """Remember the network, and copy images to the device.

        Args:
            network: as the attribute, or a part of a network that takes activations.
            recipe: as the attribute.
            images: ``(images, height, width, planes)``; None if each batch brings its own.
            prepare_targets: makes the loss's targets of a batch's, by Keras operations; None if they are the same.
        """
        # Without casting, the network gets its inputs in float32 and casts them itself where precision is mixed.
        super().__init__(name=f"{network.name}_on_planes", autocast=False)
        self.network = network
        self.recipe = recipe
        self._prepare_targets = prepare_targets
        self.images = None
        if images is not None:
            self.images = self.add_weight(
                shape=images.shape, initializer=lambda shape, dtype: ops.convert_to_tensor(images), dtype="uint8",
                trainable=False, name="images",
            )  # fmt: skip
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Predict as the network."""
        return self.network(network_input(inputs, self.recipe, self.images), training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        """Compare the outputs with the prepared targets."""
        targets = y if self._prepare_targets is None else self._prepare_targets(y)
        return super().compute_loss(x, targets, y_pred, sample_weight, training)


def _has_8_bits(array: Any) -> bool:
    return bool(keras.backend.standardize_dtype(array.dtype) == "uint8")

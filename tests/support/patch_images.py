"""Noise with a bright patch for pneumonia, as batches, and small networks that learn it in a few epochs."""

from __future__ import annotations

from typing import Any

import numpy as np

from cxr.images.recipes import recipe_named
from cxr.models.networks import build_network
from cxr.training.batches import Batches
from cxr.training.classification import ClassificationTask
from cxr.training.device import make_deterministic
from cxr.training.prepared_input import PreparedInputNetwork

SIDE = 24
RECIPE = recipe_named("s2_resize", size=SIDE)


def images_with_patches(count: int, seed: int) -> tuple[Any, Any]:
    """Images ``(count, SIDE, SIDE, 1)`` and labels; every second image has the patch."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 120, (count, SIDE, SIDE, 1), dtype=np.uint8)
    labels = np.arange(count) % 2
    images[labels == 1, 5:13, 5:13] += 60
    return images, labels


def train_and_task(
    architecture: str = "shallow", *, batch_size: int = 16, **changes: Any
) -> tuple[Batches, ClassificationTask]:
    """48 training images, and the task with 16 validation images; changes concern the training images."""
    images, labels = images_with_patches(64, 1)
    outputs = 2 if architecture == "residual_separable" else 1
    common = {"batch_size": batch_size, "outputs": outputs, "balance": "none", "mixup": 0.0, "seed": 4}
    train = Batches(images[:48], np.arange(48), labels[:48], RECIPE, **{**common, "shuffle": True, **changes})
    return train, ClassificationTask(Batches(images, np.arange(48, 64), labels[48:], RECIPE, **common))


def network(architecture: str = "shallow", dropout: float = 0.3) -> Any:
    """The network with weights from a fixed seed."""
    make_deterministic(7)
    return build_network(architecture, RECIPE.input_shape, dropout=dropout)


def on_planes(model: Any) -> PreparedInputNetwork:
    """The network with the input that batches have."""
    return PreparedInputNetwork(model, RECIPE)

"""An epoch of a frozen ResNet50 at 224 pixels: training on stored activations, compared with plain `model.fit`.

Both train the same head on the same images with the same batches. Stored activations cost one pass over the images;
here it is spread over 20 epochs, without augmented views and with two of them. Validation is left out of both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from cxr.models.backend import load_keras

load_keras()

import keras  # noqa: E402  # after load_keras
import numpy as np  # noqa: E402

from cxr.images.recipes import recipe_named  # noqa: E402
from cxr.models.networks import build_network  # noqa: E402
from cxr.models.pretrained import backbone_layers  # noqa: E402
from cxr.training.augmentation import Augmentation  # noqa: E402
from cxr.training.batches import Batches  # noqa: E402
from cxr.training.frozen_activations import store_activations  # noqa: E402
from cxr.training.frozen_split import split_frozen_part  # noqa: E402
from cxr.training.prepared_input import PreparedInputNetwork  # noqa: E402
from cxr.training.read_ahead import ReadAhead  # noqa: E402

IMAGES, EPOCHS, RUNS = 96, 20, 3


def seconds_of_an_epoch(network: keras.Model, batches: Batches) -> float:
    """Time epochs after one that compiles.

    Args:
        network: compiled network.
        batches: batches of one epoch.

    Returns:
        Median seconds of an epoch.
    """
    seconds = []
    with ReadAhead(batches) as ahead:
        data = ahead.for_fit()
        network.fit(data, epochs=1, verbose=0, shuffle=False)
        for _ in range(RUNS):
            started = time.perf_counter()
            network.fit(data, epochs=1, verbose=0, shuffle=False)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Print seconds per image and the ratios."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (IMAGES, 224, 224, 1), dtype=np.uint8)
    recipe = recipe_named("s4_resize")
    batches = Batches(
        images, np.arange(IMAGES), np.arange(IMAGES) % 2, recipe, batch_size=32, shuffle=True,
        augmentation=Augmentation(horizontal_flip=True, rotation=20, zoom=0.2), balance="none", mixup=0.0, seed=0,
    )  # fmt: skip
    network = build_network("resnet50", recipe.input_shape)
    for layer in backbone_layers(network):
        layer.trainable = False
    parts = split_frozen_part(network)
    on_planes = PreparedInputNetwork(network, recipe)
    for model in (on_planes, parts.trained):
        model.compile("nadam", "binary_crossentropy", jit_compile=False)
    plain = seconds_of_an_epoch(on_planes, batches) / IMAGES
    print(f"plain model.fit                {plain * 1000:8.2f} ms an image and epoch")
    with tempfile.TemporaryDirectory() as name:
        for views in (0, 2):
            stored = store_activations(parts.frozen, batches, views, Path(name) / str(views))
            # Repeated so that an epoch is long enough to be timed.
            rows = np.tile(np.arange(IMAGES), 20)
            stored.rows, stored.labels = rows, rows % 2
            stored.activations = tuple(np.tile(tensor, (1, 20, 1)) for tensor in stored.activations)
            epoch = seconds_of_an_epoch(parts.trained, stored) / len(rows)
            once = stored.seconds / IMAGES
            spread = epoch + once / EPOCHS
            print(
                f"stored, {views} augmented views      {epoch * 1000:8.2f} ms + {once * 1000:.1f} ms once"
                f" = {spread * 1000:.2f} ms over {EPOCHS} epochs: {plain / spread:.1f} times faster"
            )


if __name__ == "__main__":
    main()

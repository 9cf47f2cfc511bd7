"""An epoch of a frozen ResNet50 at 224 pixels: cut and computed once, against plain `model.fit`.

Both train the same head on the same images with the same batches. The cut way pays for its one pass over the images
once; here it is spread over 20 epochs, without augmented views and with two of them. Validation is left out of both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from cxr.models.backend import load_keras

load_keras()

import keras  # noqa: E402  # after its backend's greetings are kept away
import numpy as np  # noqa: E402

from cxr.images.recipes import recipe_named  # noqa: E402
from cxr.models.networks import build  # noqa: E402
from cxr.training.augmentation import Augmentation  # noqa: E402
from cxr.training.batches import Batches  # noqa: E402
from cxr.training.frozen_activations import store  # noqa: E402
from cxr.training.frozen_split import cut  # noqa: E402
from cxr.training.loop import Plan  # noqa: E402
from cxr.training.session import Phase  # noqa: E402

IMAGES, EPOCHS, RUNS = 96, 20, 3


def seconds_of_an_epoch(network: keras.Model, batches: Batches) -> float:
    """Time epochs after one that compiles.

    Args:
        network: compiled network.
        batches: batches of one epoch.

    Returns:
        Median seconds of an epoch.
    """
    network.fit(batches, epochs=1, verbose=0, shuffle=False)
    found = []
    for _ in range(RUNS):
        started = time.perf_counter()
        network.fit(batches, epochs=1, verbose=0, shuffle=False)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def main() -> None:
    """Print seconds per image and the ratios."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (IMAGES, 224, 224, 1), dtype=np.uint8)
    recipe = recipe_named("s4_resize")
    batches = Batches(
        images, np.arange(IMAGES), np.arange(IMAGES) % 2, recipe, batch_size=32, shuffle=True,
        augmentation=Augmentation(horizontal_flip=True, rotation=20, zoom=0.2),
    )  # fmt: skip
    network = build("resnet50", recipe.input_shape)
    Phase("the backbone is frozen", Plan("nadam", 1e-3, 1), 0).freeze(network)
    parts = cut(network)
    for model in (network, parts.rest):
        model.compile("nadam", "binary_crossentropy", jit_compile=False)
    plain = seconds_of_an_epoch(network, batches) / IMAGES
    print(f"plain model.fit            {plain * 1000:8.2f} ms an image and epoch")
    with tempfile.TemporaryDirectory() as name:
        for views in (0, 2):
            stored = store(parts.frozen, batches, views, Path(name) / str(views))
            # Repeated so that an epoch is long enough to be timed.
            rows = np.tile(np.arange(IMAGES), 20)
            stored.rows, stored.labels = rows, rows % 2
            stored.stored = tuple(np.tile(one, (1, 20, 1)) for one in stored.stored)
            epoch = seconds_of_an_epoch(parts.rest, stored) / len(rows)
            once = stored.seconds / IMAGES
            spread = epoch + once / EPOCHS
            print(
                f"cut, {views} augmented views     {epoch * 1000:8.2f} ms + {once * 1000:.1f} ms once"
                f" = {spread * 1000:.2f} ms over {EPOCHS} epochs: {plain / spread:.1f} times faster"
            )


if __name__ == "__main__":
    main()

"""Augmentation on one core at the networks' sizes, and whole augmented batches compared with training.

Run it with ``python benchmarks/augmentation.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import yaml

from cxr.images.recipes import recipe_named
from cxr.models.backend import load_keras
from cxr.training.augmentation import Augmentation, augment

RANGES = {
    "flip": Augmentation(horizontal_flip=True),
    "flip, zoom, shear": Augmentation(horizontal_flip=True, zoom=0.2, shear=0.2),
    "all": Augmentation(horizontal_flip=True, rotation=20, zoom=0.2, shear=10, shift=0.1),
}


def main() -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    generator = np.random.default_rng(0)
    print(f"one core; images/s\n\n{'size':>5}{'planes':>8}  {'changes':<20}{'images/s':>10}")
    for size in (64, 224):
        for planes in (1, 2):
            images = generator.integers(0, 256, (256, size, size, planes)).astype(np.uint8)
            for name, ranges in RANGES.items():
                rounds = 8 if size == 64 else 3
                augment(images, ranges, generator)
                start = time.perf_counter()
                for _ in range(rounds):
                    augment(images, ranges, generator)
                speed = rounds * len(images) / (time.perf_counter() - start)
                print(f"{size:>5}{planes:>8}  {name:<20}{speed:>10.0f}")
    compare_with_training()


def images_per_second(work: Callable[[int], object], images: int, rounds: int) -> float:
    """Time some work.

    Args:
        work: called with 0, 1, 2 ...
        images: images per call.
        rounds: number of timed calls; one more comes first.

    Returns:
        Images per second.
    """
    work(0)
    start = time.perf_counter()
    for number in range(rounds):
        work(number)
    return rounds * images / (time.perf_counter() - start)


def compare_with_training() -> None:
    """Print, for each model of params.yaml with augmentation, how much faster batches are made than trained on."""
    load_keras()
    from cxr.models.networks import build_network
    from cxr.training.batches import Batches
    from cxr.training.prepared_input import PreparedInputNetwork

    params = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
    generator = np.random.default_rng(1)
    print(f"\n{'model':<20}{'batches, one core':>19}{'training, all cores':>21}{'ratio':>7}")
    for name, entry in params["models"].items():
        if not entry["augmentation"]:
            continue
        recipe = recipe_named(entry["recipe"], **params["recipes"][entry["recipe"]])
        size, count = entry["batch_size"], 4 * entry["batch_size"]
        images = generator.integers(0, 256, (count, recipe.size, recipe.size, recipe.planes)).astype(np.uint8)
        batches = Batches(
            images, np.arange(count), np.arange(count) % 2, recipe, batch_size=size, shuffle=True,
            augmentation=Augmentation(**entry["augmentation"]), balance="none", mixup=0.0, seed=0,
        )  # fmt: skip
        network = PreparedInputNetwork(build_network(entry["architecture"], recipe.input_shape), recipe)
        network.compile(entry["optimizer"], "binary_crossentropy", jit_compile=False)
        batch = batches[0]
        prepared = images_per_second(lambda number, batches=batches: batches[number % 4], size, 24)
        trained = images_per_second(
            lambda number, network=network, batch=batch: network.train_on_batch(*batch), size, 8
        )
        print(f"{name:<20}{prepared:>19.0f}{trained:>21.0f}{prepared / trained:>7.1f}")


if __name__ == "__main__":
    main()

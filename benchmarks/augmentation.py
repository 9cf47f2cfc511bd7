"""Images per second of augmentation on one core, at the sizes of the networks' inputs.

Run it with ``python benchmarks/augmentation.py``.
"""

from __future__ import annotations

import time

import cv2
import numpy as np

from cxr.augmentation import Augmentation, augment

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
                rate = rounds * len(images) / (time.perf_counter() - start)
                print(f"{size:>5}{planes:>8}  {name:<20}{rate:>10.0f}")


if __name__ == "__main__":
    main()

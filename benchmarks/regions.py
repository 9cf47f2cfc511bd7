"""A detector of opacities beside a classifier on the same backbone: images/s, and the share that suppression takes.

Run it with ``python benchmarks/regions.py``. Both networks take turns, so that other work on the machine slows both
alike; the ratios count. Batches are prepared in advance: augmentation is the same for both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cxr.models.backend import load_keras

load_keras()

import keras  # noqa: E402  # after load_keras
import numpy as np  # noqa: E402

from cxr.images.recipes import recipe_named  # noqa: E402
from cxr.models.networks import build_network  # noqa: E402
from cxr.regions.anchors import make_anchors  # noqa: E402
from cxr.regions.assignment import assign_batch  # noqa: E402
from cxr.regions.detector import build_detector  # noqa: E402
from cxr.regions.losses import detection_losses  # noqa: E402
from cxr.regions.suppression import detect_boxes  # noqa: E402
from cxr.regions.targets import detection_targets  # noqa: E402
from cxr.steps.train_regions import TrainRegions  # noqa: E402

DETECTOR = "retinanet_lite0"
BATCH, RUNS = 16, 7


def main() -> None:
    """Print images/s of both networks, the ratios, and what suppression costs."""
    params = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
    folders = {"model": DETECTOR, "prepared": "prepared", "trained": "trained"}
    step = TrainRegions.build({**params["regions"][DETECTOR], **folders})
    recipe = recipe_named(step.recipe or "s4_resize")
    keras.utils.set_random_seed(0)
    classifier = build_network(step.backbone, recipe.input_shape)
    detector = build_detector(
        step.backbone, recipe.input_shape, squeeze_excitation=step.squeeze_excitation, weights="none",
        channels=step.channels, convolutions=step.convolutions, dropout=step.dropout,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    images = generator.random((BATCH, *recipe.input_shape)).astype(np.float32)
    anchors = make_anchors(recipe.size)
    # Two boxes in every second image, as in the labels of the RSNA challenge.
    boxes = [draw_boxes(generator, recipe.size, 2 * (number % 2)) for number in range(BATCH)]
    targets = detection_targets(assign_batch(anchors, boxes, 2), anchors)
    losses = detection_losses(focal_balance=step.focal_balance, focal_focus=step.focal_focus)
    detector.compile("adam", losses, jit_compile=False)
    classifier.compile("adam", "binary_crossentropy", jit_compile=False)
    labels = np.arange(BATCH)[:, np.newaxis] % 2
    print(f"{step.backbone}, {recipe.size} pixels, batches of {BATCH}; detector with {detector.count_params():,} "
          f"parameters, classifier with {classifier.count_params():,}\n")  # fmt: skip
    print(f"{'images/s':<10}{'classifier':>12}{'detector':>12}{'detector / classifier':>24}")
    outputs: dict[str, Any] = {}

    def predict() -> None:
        outputs.update(detector.predict_on_batch(images))

    training = (
        lambda: classifier.train_on_batch(images, labels),
        lambda: detector.train_on_batch(images, targets),
    )
    for name, works in (("train", training), ("predict", (lambda: classifier.predict_on_batch(images), predict))):
        of_classifier, of_detector = alternate(works)
        ratio = of_classifier / of_detector
        print(f"{name:<10}{BATCH / of_classifier:>12.1f}{BATCH / of_detector:>12.1f}{ratio:>24.2f}")
    print()
    for mean in (-6.0, 6.0):
        logits = generator.normal(mean, 2.0, (BATCH, len(anchors))).astype(np.float32)
        deltas = generator.normal(0.0, 1.0, (BATCH, len(anchors), 4)).astype(np.float32)
        array = {"class_logits": logits, "box_deltas": deltas}

        def suppress(array: dict[str, Any] = array) -> None:
            detect_boxes(
                array, anchors, recipe.size, min_score=step.min_score, max_overlap=step.max_overlap,
                max_boxes=step.max_boxes,
            )  # fmt: skip

        of_network, of_suppression = alternate((predict, suppress))
        share = of_suppression / (of_network + of_suppression)
        count = int((logits > np.log(step.min_score / (1 - step.min_score))).sum() / BATCH)
        print(
            f"boxes where {count:,} of {len(anchors):,} anchors reach min_score: "
            f"{1000 * of_suppression / BATCH:.2f} ms an image, {share:.1%} of prediction"
        )


def draw_boxes(generator: np.random.Generator, side: int, count: int) -> np.ndarray:
    """Draw boxes of the median size of the RSNA challenge.

    Args:
        generator: source of the random numbers.
        side: side of the image, pixels.
        count: number of boxes.

    Returns:
        ``(count, 4)`` float32: left, top, right, bottom.
    """
    size = side * np.array([217, 298]) / 1024
    corners = generator.random((count, 2)) * (side - size)
    return np.concatenate([corners, corners + size], axis=1).astype(np.float32)


def alternate(works: tuple[Callable[[], object], ...]) -> list[float]:
    """Time some kinds of work in turns, after one turn that compiles.

    Args:
        works: what to time.

    Returns:
        Median seconds of each.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for run in range(RUNS + 1):
        for work, times in zip(works, seconds, strict=True):
            started = time.perf_counter()
            work()
            if run:
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in seconds]


if __name__ == "__main__":
    main()

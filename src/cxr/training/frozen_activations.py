"""Activations of a frozen network part, computed once, kept on disk and read as batches."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cxr.errors import TrainingError
from cxr.images.recipes import as_input
from cxr.training.augmentation import Augmentation, augment
from cxr.training.batches import Batches

log = logging.getLogger(__name__)

DONE = "seconds.txt"
"""Written last: a folder without it was left by a killed run."""


class ActivationBatches(Batches):
    """Batches of stored activations, in the order that the images themselves would have.

    With augmentation, the plain image and a number of fixed augmented views are stored; which of them an epoch
    shows is drawn per image from seed and epoch.
    """

    def __init__(self, images: Batches, stored: Sequence[NDArray[np.float32]], seconds: float) -> None:
        """Take order, labels and weights from the batches of images.

        Args:
            images: batches that the activations were computed of.
            stored: one array per tensor of the cut, ``(views, images, ...)`` float32; view 0 is the plain image.
            seconds: what computing them took.
        """
        super().__init__(
            images.images, images.rows, images.labels, images.recipe,
            batch_size=images.batch_size, outputs=images.outputs, shuffle=images.shuffle,
            balance=images.balance, seed=images.seed,
        )  # fmt: skip
        self.stored = tuple(stored)
        self.seconds = seconds

    def inputs(self, chosen: NDArray[np.int64], index: int) -> Any:
        """Read activations.

        Args:
            chosen: ``(batch,)`` positions.
            index: number of the batch; not used, the view of an image depends on the epoch alone.

        Returns:
            One array ``(batch, ...)`` float32, or a tuple of them where the cut has several tensors.
        """
        generator = np.random.default_rng([self.seed, self.epoch, 2])
        view = generator.integers(0, len(self.stored[0]), len(self.rows))[chosen]
        found = tuple(np.ascontiguousarray(one[view, chosen]) for one in self.stored)
        return found if len(found) > 1 else found[0]


def store(frozen: keras.Model, images: Batches, views: int, folder: Path) -> ActivationBatches:
    """Compute activations once, or find them from a run that was killed later.

    Args:
        frozen: frozen part of a network, from the image to one or several tensors.
        images: batches of images; their augmentation makes the views.
        views: augmented views beside the plain image; none are made where the images have no augmentation.
        folder: where to keep the arrays; its name must tell everything that they depend on.

    Returns:
        Batches of the activations, memory-mapped.
    """
    names = [folder / f"tensor-{number}.npy" for number in range(len(frozen.outputs))]
    if not (folder / DONE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        changes = images.augmentation if views and images.augmentation else None
        _compute(frozen, images, changes, 1 + views if changes else 1, names)
        (folder / DONE).write_text(f"{time.perf_counter() - started:.1f}\n", encoding="utf-8")
    seconds = float((folder / DONE).read_text(encoding="utf-8"))
    return ActivationBatches(images, [np.load(name, mmap_mode="r") for name in names], seconds)


def _compute(
    frozen: keras.Model, images: Batches, changes: Augmentation | None, views: int, names: Sequence[Path]
) -> None:
    count, size = len(images.rows), images.batch_size
    shapes = [(views, count, *output.shape[1:]) for output in frozen.outputs]
    needed = sum(math.prod(shape) for shape in shapes) * 4 / 2**30
    free = shutil.disk_usage(names[0].parent).free / 2**30
    if needed > free:
        raise TrainingError(
            f"expected {needed:.1f} GiB of disk for the activations of {frozen.name}, received {free:.1f} GiB free "
            f"in {names[0].parent}; lower augmented_views (now {views - 1}), or set cut: never"
        )
    arrays = [
        np.lib.format.open_memmap(name, mode="w+", dtype=np.float32, shape=shape)
        for name, shape in zip(names, shapes, strict=True)
    ]
    log.info("activations of %s: %d images, %d views, %.1f GiB", frozen.name, count, views, needed)
    with tqdm(total=views * count, desc="frozen layers", unit="image", disable=None) as bar:
        for view in range(views):
            for start in range(0, count, size):
                pictures = images.images[images.rows[start : start + size]]
                if view and changes is not None:
                    pictures = augment(pictures, changes, np.random.default_rng([images.seed, view, 3, start]))
                answers = _answers(frozen, as_input(pictures, images.recipe), size)
                for array, answer in zip(arrays, answers, strict=True):
                    array[view, start : start + len(pictures)] = answer
                bar.update(len(pictures))
    for array in arrays:
        array.flush()


def _answers(frozen: keras.Model, batch: NDArray[np.float32], size: int) -> list[NDArray[np.float32]]:
    """Answers for a batch, filled up to its full size so that one size is compiled."""
    count = len(batch)
    if count < size:
        batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
    answers = frozen.predict_on_batch(batch)
    listed = answers if isinstance(answers, list | tuple) else [answers]
    return [np.asarray(one, dtype=np.float32)[:count] for one in listed]

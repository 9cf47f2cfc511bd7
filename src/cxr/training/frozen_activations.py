"""Activations of the frozen part of a network: computed once, kept on disk and read as batches."""

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
from cxr.images.recipes import to_network_input
from cxr.training.augmentation import Augmentation, augment
from cxr.training.batches import Batches

log = logging.getLogger(__name__)

SECONDS_FILE = "seconds.txt"
"""Written last: a folder without it was left by a killed run."""


class ActivationBatches(Batches):
    """Batches of stored activations, in the order that the images themselves would have.

    With augmentation, the plain image and a fixed number of augmented views are stored. Seed and epoch draw the view
    of each image.

    Attributes:
        activations: one array per tensor of the split, ``(views, images, ...)`` float32; view 0 is the plain image.
        seconds: time that computing them took.
    """

    def __init__(self, images: Batches, activations: Sequence[NDArray[np.float32]], seconds: float) -> None:
        """Take order, labels and weights from the batches of images.

        Args:
            images: batches that the activations were computed from.
            activations: as the attribute.
            seconds: as the attribute.
        """
        super().__init__(
            images.images, images.rows, images.labels, images.recipe,
            batch_size=images.batch_size, outputs=images.outputs, shuffle=images.shuffle,
            balance=images.balance, mixup=0.0, seed=images.seed, devices=images.devices,
        )  # fmt: skip
        self.activations = tuple(activations)
        self.seconds = seconds

    def inputs(self, positions: NDArray[np.int64], index: int) -> Any:
        """Read activations.

        Args:
            positions: ``(batch,)`` positions in ``rows``.
            index: number of the batch; not used, because the view of an image depends on the epoch alone.

        Returns:
            One array ``(batch, ...)`` float32, or a tuple of them where the split has several tensors.
        """
        generator = np.random.default_rng([self.seed, self.epoch, 2])
        views = generator.integers(0, len(self.activations[0]), len(self.rows))[positions]
        tensors = tuple(np.ascontiguousarray(tensor[views, positions]) for tensor in self.activations)
        return tensors if len(tensors) > 1 else tensors[0]


def store_activations(frozen: keras.Model, images: Batches, views: int, folder: Path) -> ActivationBatches:
    """Compute activations once; a resumed run reads those of the killed run.

    Args:
        frozen: frozen part of a network, from the image to one or several tensors.
        images: batches of images; their augmentation makes the views.
        views: number of augmented views beside the plain image; images without augmentation get none.
        folder: where to keep the arrays; its name must identify everything that they depend on.

    Returns:
        Batches of the activations, memory-mapped.

    Raises:
        TrainingError: if the disk has too little space.
    """
    files = [folder / f"tensor-{number}.npy" for number in range(len(frozen.outputs))]
    if not (folder / SECONDS_FILE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        augmentation = images.augmentation if views and images.augmentation else None
        _compute(frozen, images, augmentation, 1 + views if augmentation else 1, files)
        (folder / SECONDS_FILE).write_text(f"{time.perf_counter() - started:.1f}\n", encoding="utf-8")
    seconds = float((folder / SECONDS_FILE).read_text(encoding="utf-8"))
    return ActivationBatches(images, [np.load(file, mmap_mode="r") for file in files], seconds)


def _compute(
    frozen: keras.Model, images: Batches, augmentation: Augmentation | None, views: int, files: Sequence[Path]
) -> None:
    count, batch_size = len(images.rows), images.batch_size
    shapes = [(views, count, *output.shape[1:]) for output in frozen.outputs]
    needed = sum(math.prod(shape) for shape in shapes) * 4 / 2**30
    free = shutil.disk_usage(files[0].parent).free / 2**30
    if needed > free:
        raise TrainingError(
            f"expected {needed:.1f} GiB of disk for the activations of {frozen.name}, received {free:.1f} GiB free "
            f"in {files[0].parent}; lower augmented_views (now {views - 1}), or set cut: never"
        )
    arrays = [
        np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        for file, shape in zip(files, shapes, strict=True)
    ]
    log.info("activations of %s: %d images, %d views, %.1f GiB", frozen.name, count, views, needed)
    with tqdm(total=views * count, desc="frozen layers", unit="image", disable=None) as bar:
        for view in range(views):
            for start in range(0, count, batch_size):
                batch = images.images[images.rows[start : start + batch_size]]
                if view and augmentation is not None:
                    batch = augment(batch, augmentation, np.random.default_rng([images.seed, view, 3, start]))
                outputs = _predict_padded(frozen, to_network_input(batch, images.recipe), batch_size)
                for array, output in zip(arrays, outputs, strict=True):
                    array[view, start : start + len(batch)] = output
                bar.update(len(batch))
    for array in arrays:
        array.flush()


def _predict_padded(frozen: keras.Model, batch: NDArray[np.float32], batch_size: int) -> list[NDArray[np.float32]]:
    """Predict a batch, padded to its full size so that only one size is compiled."""
    count = len(batch)
    if count < batch_size:
        batch = np.concatenate([batch, np.repeat(batch[-1:], batch_size - count, axis=0)])
    outputs = frozen.predict_on_batch(batch)
    listed = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [np.asarray(output, dtype=np.float32)[:count] for output in listed]

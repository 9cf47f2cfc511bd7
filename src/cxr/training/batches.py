"""Batches of prepared images for training and prediction: the same on every Keras backend, seeded by epoch."""

from __future__ import annotations

import os
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from cxr.images.recipes import Recipe, as_input
from cxr.training.augmentation import Augmentation, augment

Balance = Literal["none", "class_weights", "oversample"]

LOADERS = min(8, max(2, os.cpu_count() or 1))
"""Threads that make batches while the network trains; OpenCV and NumPy release Python's lock."""


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Batches in an order, and with augmentation, that depend on seed and epoch alone.

    A run that is killed and resumed therefore sees the very batches it would have seen.

    Attributes:
        epoch: number of the epoch, from 0, whose order is given; set it before each pass.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        recipe: Recipe,
        *,
        batch_size: int,
        outputs: int = 1,
        shuffle: bool = False,
        augmentation: Augmentation | None = None,
        balance: Balance = "none",
        seed: int = 0,
    ) -> None:
        """Describe the batches; nothing is read yet.

        Args:
            images: ``(n, size, size, planes)`` uint8, usually memory-mapped.
            rows: ``(m,)`` rows of ``images`` to use.
            labels: ``(m,)`` 0 for NORMAL, 1 for PNEUMONIA.
            recipe: recipe of the images; it says how planes become channels.
            batch_size: images a batch.
            outputs: columns of the network's output: 1 (sigmoid) or 2 (softmax).
            shuffle: whether to draw a new order each epoch.
            augmentation: changes of position; None for none.
            balance: ``"class_weights"`` weighs each image by n / (2 * images of its class);
                ``"oversample"`` repeats images of the rarer class, drawn anew each epoch.
            seed: seed of order, augmentation and oversampling.
        """
        super().__init__(workers=LOADERS, use_multiprocessing=False, max_queue_size=2 * LOADERS)
        self.images = images
        self.rows = np.asarray(rows, dtype=np.int64)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.recipe = recipe
        self.batch_size = batch_size
        self.outputs = outputs
        self.shuffle = shuffle
        self.augmentation = augmentation
        self.balance = balance
        self.seed = seed
        self.epoch = 0
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    @property
    def count(self) -> int:
        """Images in one epoch, repeated ones included."""
        if self.balance == "oversample":
            return 2 * int(np.bincount(self.labels, minlength=2).max())
        return len(self.rows)

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Read one batch.

        Args:
            index: number of the batch, from 0.

        Returns:
            What :meth:`inputs` gives; labels ``(batch, outputs)`` float32;
            and, with class weights, weights ``(batch,)`` float32.
        """
        chosen = self.order()[index * self.batch_size : (index + 1) * self.batch_size]
        labels = self.labels[chosen]
        targets = labels[:, None] if self.outputs == 1 else np.eye(2)[labels]
        batch = (self.inputs(chosen, index), targets.astype(np.float32))
        if self.balance == "class_weights":
            return *batch, self.class_weights()[labels].astype(np.float32)
        return batch

    def inputs(self, chosen: NDArray[np.int64], index: int) -> Any:
        """Read and augment images.

        Args:
            chosen: ``(batch,)`` positions in ``rows``.
            index: number of the batch; with seed and epoch it decides the augmentation.

        Returns:
            ``(batch, height, width, channels)`` float32 in [0, 1].
        """
        images = self.images[self.rows[chosen]]
        if self.augmentation is not None:
            images = augment(images, self.augmentation, np.random.default_rng([self.seed, self.epoch, 1, index]))
        return as_input(images, self.recipe)

    def class_weights(self) -> NDArray[np.float64]:
        """Weights that give both classes the same say.

        Returns:
            ``(2,)`` float64, n / (2 * images of the class).
        """
        counts = np.bincount(self.labels, minlength=2)
        weights: NDArray[np.float64] = len(self.labels) / (2 * np.maximum(counts, 1))
        return weights

    def order(self) -> NDArray[np.int64]:
        """Positions in ``rows`` that the current epoch goes through.

        Returns:
            ``(count,)`` int64.
        """
        if self._order[0] != self.epoch:
            self._order = (self.epoch, self._draw())
        return self._order[1]

    def _draw(self) -> NDArray[np.int64]:
        generator = np.random.default_rng([self.seed, self.epoch, 0])
        positions = np.arange(len(self.rows))
        if self.balance == "oversample":
            most = int(np.bincount(self.labels, minlength=2).max())
            groups = [positions[self.labels == label] for label in (0, 1)]
            positions = np.concatenate(
                [np.concatenate([group, generator.choice(group, most - len(group))]) for group in groups]
            )
        return generator.permutation(positions) if self.shuffle else positions

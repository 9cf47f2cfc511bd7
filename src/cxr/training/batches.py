"""Batches of prepared images: the same on every Keras backend, in an order seeded by epoch.

A batch holds the images as they are stored, one byte per grey level; :mod:`cxr.training.prepared_input` makes a
network's input of it on the device that trains.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from cxr.evaluation.prediction import ImageRows
from cxr.images.recipes import Recipe
from cxr.training.augmentation import Augmentation, DrawnChanges, apply_changes, draw_changes, grey_level_factors
from cxr.training.data_parallel import ONE_DEVICE, DeviceGroup
from cxr.training.prepared_input import GREY_LEVEL_FACTORS, MATRICES, PARTNERS, PLANES, ROWS, SHARES

Balance = Literal["none", "class_weights", "oversample"]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # keras ships no types
    """Batches whose order and augmentation depend on seed and epoch alone.

    A run that is killed and resumed therefore sees the same batches as one that was not. Where several processes
    train, each reads its own part of every batch; the parts make up the batch that a single one would read.

    Attributes:
        epoch: number of the current epoch, from 0; set it before each pass.
        augments_on_device: whether the device changes the images, and the batches only say how.
        stays_on_device: whether all images lie on the device, and the batches only name their positions.
    """

    def __init__(
        self,
        images: ImageRows,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        recipe: Recipe,
        *,
        batch_size: int,
        outputs: int = 1,
        shuffle: bool = False,
        augmentation: Augmentation | None = None,
        balance: Balance,
        mixup: float,
        seed: int,
        devices: DeviceGroup = ONE_DEVICE,
    ) -> None:
        """Describe the batches; no image is read yet.

        Args:
            images: ``(n, size, size, planes)`` uint8, usually memory-mapped.
            rows: ``(m,)`` row numbers of the images to use.
            labels: ``(m,)``, 0 for NORMAL and 1 for PNEUMONIA.
            recipe: recipe of the images; it defines how planes become channels.
            batch_size: images per batch, of all devices together.
            outputs: number of outputs of the network: 1 (sigmoid) or 2 (softmax).
            shuffle: whether each epoch has a new random order.
            augmentation: ranges of random changes; None for none.
            balance: ``"class_weights"`` weights each image by n / (2 * images of its class);
                ``"oversample"`` repeats images of the rarer class, drawn anew each epoch.
            mixup: parameter alpha of :meth:`mix`; 0 mixes nothing.
            seed: seed of order, augmentation, oversampling and mixing.
            devices: the devices that divide each batch among themselves.
        """
        super().__init__(workers=1, use_multiprocessing=False)
        self.images = images
        self.rows = np.asarray(rows, dtype=np.int64)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.recipe = recipe
        self.batch_size = batch_size
        self.outputs = outputs
        self.shuffle = shuffle
        self.augmentation = augmentation
        self.balance = balance
        self.mixup = mixup
        self.seed = seed
        self.devices = devices
        self.epoch = 0
        self.augments_on_device = False
        self.stays_on_device = False
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    @property
    def is_made_ahead(self) -> bool:
        """Whether threads make batches ahead; to name images takes less time than passing a batch between threads."""
        return not self.stays_on_device

    @property
    def count(self) -> int:
        """Number of images in one epoch, repeated ones included."""
        if self.balance == "oversample":
            return 2 * int(np.bincount(self.labels, minlength=2).max())
        return len(self.rows)

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Read one batch, or the part of it that belongs to this process.

        Args:
            index: number of the batch, from 0.

        Returns:
            What :meth:`inputs` returns, as :meth:`cxr.training.data_parallel.DeviceGroup.divide` passes it on; labels
            ``(batch, outputs)`` float32; and, with class weights, weights ``(batch,)`` float32.
        """
        positions = self.positions(index)
        own = self.devices.own_rows(len(positions))
        labels = self.labels[positions]
        targets = labels[:, None] if self.outputs == 1 else np.eye(2)[labels]
        judged = [targets.astype(np.float32)]
        if self.balance == "class_weights":
            judged.append(self.class_weights()[labels].astype(np.float32))
        inputs = self.inputs(positions[own], index)
        if self.mixup:
            partners, shares = self.mixture(len(positions), index)
            for number, array in enumerate(judged):
                share = shares.reshape(-1, *[1] * (array.ndim - 1))
                judged[number] = share * array + (1 - share) * array[partners]
            images = inputs if isinstance(inputs, dict) else {PLANES: inputs}
            inputs = {**images, PARTNERS: partners[own], SHARES: shares[own]}
        return self.devices.divide(inputs, len(positions)), *(array[own] for array in judged)

    def mixture(self, count: int, index: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Draw what each image is mixed with (mixup, Zhang et al. 2017, arXiv:1710.09412).

        The share of the first image is drawn from Beta(alpha, alpha), for each image anew. Labels and weights are
        mixed like the images.

        Args:
            count: images of the batch.
            index: number of the batch; with seed and epoch it decides partners and shares.

        Returns:
            ``(batch,)`` positions in the batch of the other images, and ``(batch,)`` shares of the images themselves.
        """
        generator = np.random.default_rng([self.seed, self.epoch, 4, index])
        shares = generator.beta(self.mixup, self.mixup, count).astype(np.float32)
        return generator.permutation(count).astype(np.int32), shares

    def inputs(self, positions: NDArray[np.int64], index: int) -> Any:
        """Read images, and augment them or say how the device augments them.

        Args:
            positions: ``(batch,)`` positions in ``rows``, of this process's part of the batch.
            index: number of the batch; with seed and epoch it decides the augmentation.

        Returns:
            ``(batch, height, width, planes)`` uint8; or a mapping of what
            :func:`cxr.training.prepared_input.network_input` takes.
        """
        changes = self.changes(index)
        if not (self.augments_on_device or self.stays_on_device):
            images = self.images[self.rows[positions]]
            return images if changes is None else apply_changes(images, changes)
        inputs: dict[str, NDArray[Any]] = (
            {ROWS: positions.astype(np.int32)} if self.stays_on_device else {PLANES: self.images[self.rows[positions]]}
        )
        if changes is not None:
            inputs[MATRICES] = changes.matrices.astype(np.float32)
            if changes.augmentation.changes_grey_levels:
                factors = grey_level_factors(changes.augmentation, changes.photometric_draws)
                inputs[GREY_LEVEL_FACTORS] = factors.astype(np.float32)
        return inputs

    def changes(self, index: int) -> DrawnChanges | None:
        """Draw the random changes of a batch of the current epoch; they depend on seed, epoch and number alone.

        Args:
            index: number of the batch, from 0.

        Returns:
            The changes of this process's part; None without augmentation.
        """
        if self.augmentation is None:
            return None
        count, size = len(self.positions(index)), self.recipe.size
        generator = np.random.default_rng([self.seed, self.epoch, 1, index])
        return draw_changes(count, size, size, self.augmentation, generator).select(self.devices.own_rows(count))

    def prepare_targets(self, targets: Any) -> Any:
        """Make of a batch's targets, on the device, what the loss compares with the network's outputs.

        Args:
            targets: as :meth:`__getitem__` returns them.

        Returns:
            The same; batches of boxes have more to do.
        """
        return targets

    def device_images(self) -> NDArray[np.uint8] | None:
        """Read the images that lie on the device while the network trains.

        Returns:
            ``(images, height, width, planes)`` in the order of ``rows``; None if each batch brings its own.
        """
        return self.images[self.rows] if self.stays_on_device else None

    def positions(self, index: int) -> NDArray[np.int64]:
        """List the positions in ``rows`` of the images of a batch of the current epoch.

        Args:
            index: number of the batch, from 0.

        Returns:
            ``(batch,)`` int64.
        """
        return self.order()[index * self.batch_size : (index + 1) * self.batch_size]

    def class_weights(self) -> NDArray[np.float64]:
        """Compute weights that give both classes the same total weight.

        Returns:
            ``(2,)`` float64, n / (2 * images of the class).
        """
        counts = np.bincount(self.labels, minlength=2)
        weights: NDArray[np.float64] = len(self.labels) / (2 * np.maximum(counts, 1))
        return weights

    def order(self) -> NDArray[np.int64]:
        """List the positions in ``rows`` in the order of the current epoch.

        Returns:
            ``(count,)`` int64.
        """
        if self._order[0] != self.epoch:
            self._order = (self.epoch, self._draw_order())
        return self._order[1]

    def _draw_order(self) -> NDArray[np.int64]:
        generator = np.random.default_rng([self.seed, self.epoch, 0])
        positions = np.arange(len(self.rows))
        if self.balance == "oversample":
            largest = int(np.bincount(self.labels, minlength=2).max())
            groups = [positions[self.labels == label] for label in (0, 1)]
            positions = np.concatenate(
                [np.concatenate([group, generator.choice(group, largest - len(group))]) for group in groups]
            )
        return generator.permutation(positions) if self.shuffle else positions

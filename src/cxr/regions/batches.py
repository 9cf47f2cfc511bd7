"""Batches of prepared images with boxes for the detector; boxes follow recipe and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.data.boxes import Boxes
from cxr.evaluation.prediction import ImageRows
from cxr.images.recipes import Recipe
from cxr.regions.anchors import make_anchors
from cxr.regions.assignment import assign_batch
from cxr.regions.placement import augment_boxes
from cxr.regions.targets import detection_targets
from cxr.training.augmentation import Augmentation
from cxr.training.batches import Balance, Batches


class RegionBatches(Batches):
    """Batches whose order and augmentation depend on seed and epoch alone, as those of a classifier do.

    With the same seed a classifier sees the same images in the same order. Images are not mixed.

    Attributes:
        boxes: :data:`cxr.data.boxes.Boxes` of each image in pixels of the prepared image.
        anchors: ``(anchors, 4)``, as :func:`cxr.regions.anchors.make_anchors` gives them.
    """

    def __init__(
        self,
        images: ImageRows,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        boxes: Sequence[Boxes],
        recipe: Recipe,
        *,
        batch_size: int,
        shuffle: bool = False,
        augmentation: Augmentation | None = None,
        balance: Balance,
        seed: int,
    ) -> None:
        """Describe the batches; no image is read yet.

        Args:
            images: ``(n, size, size, planes)`` uint8, usually memory-mapped.
            rows: ``(m,)`` row numbers of the images to use.
            labels: ``(m,)``, 0 for NORMAL and 1 for PNEUMONIA, for ``balance`` and for the validation of an epoch.
            boxes: one array per image, as the attribute.
            recipe: recipe of the images.
            batch_size: images per batch.
            shuffle: whether each epoch has a new random order.
            augmentation: ranges of random changes; None for none.
            balance: ``"none"``, or ``"oversample"``, which repeats images of the rarer class, drawn anew each epoch.
            seed: seed of order, augmentation and oversampling.
        """
        super().__init__(
            images, rows, labels, recipe, batch_size=batch_size, shuffle=shuffle, augmentation=augmentation,
            balance=balance, mixup=0.0, seed=seed,
        )  # fmt: skip
        self.boxes = list(boxes)
        self.anchors = make_anchors(recipe.size)
        self._most_boxes = max(map(len, self.boxes), default=0)

    @property
    def is_made_ahead(self) -> bool:
        """Always: boxes take time, wherever the images lie."""
        return True

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Read one batch.

        Args:
            index: number of the batch, from 0.

        Returns:
            What :meth:`inputs` returns, and the result of :func:`cxr.regions.assignment.assign_batch` for the boxes,
            moved by the same matrices as their images.
        """
        positions = self.positions(index)
        boxes = [self.boxes[position] for position in positions]
        changes = self.changes(index)
        if changes is not None:
            size = self.recipe.size
            boxes = [
                augment_boxes(image_boxes, matrix, size, size).boxes
                for image_boxes, matrix in zip(boxes, changes.matrices, strict=True)
            ]
        return self.inputs(positions, index), assign_batch(self.anchors, boxes, self._most_boxes)

    def prepare_targets(self, targets: Any) -> Any:
        """Make the targets of the detector's outputs; see :func:`cxr.regions.targets.detection_targets`."""
        return detection_targets(targets, self.anchors)

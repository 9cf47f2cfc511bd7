"""Prepared images under acquisition changes, for the validation of an epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxr.evaluation.acquisition_changes import ACQUISITION_CHANGES
from cxr.evaluation.prediction import ImageRows


class ChangedImages:
    """Prepared images that are changed when they are read.

    One of the changes of the stress test belongs to each row, in turn. So an epoch is measured under all of them, and
    this takes as long as one pass over the images.
    """

    def __init__(self, images: ImageRows) -> None:
        """Remember the images; none is read yet.

        Args:
            images: ``(n, size, size, planes)`` uint8, usually memory-mapped.
        """
        self.images = images

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read images and change them.

        Args:
            rows: ``(m,)`` row numbers.

        Returns:
            ``(m, size, size, planes)`` uint8.
        """
        changes = [ACQUISITION_CHANGES[row % len(ACQUISITION_CHANGES)] for row in rows.tolist()]
        return np.stack([change.apply(image) for change, image in zip(changes, self.images[rows], strict=True)])

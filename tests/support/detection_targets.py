"""Targets of a detector as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from cxr.regions.assignment import assign_batch
from cxr.regions.targets import detection_targets


def target_arrays(anchors: np.ndarray, boxes: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The targets of a batch with these boxes, as the step that trains makes them."""
    targets = detection_targets(assign_batch(anchors, boxes, max(map(len, boxes))), anchors)
    return {name: keras.ops.convert_to_numpy(target) for name, target in targets.items()}

"""How fast a network predicts: information for whoever has to choose one, not a figure to be reproduced."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.evaluation.evaluate import CHUNK, Predicts, predict


def timed_predict(
    predictor: Predicts,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    device: Mapping[str, Any],
    *,
    batch_size: int = 64,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Predict, and measure the wall clock of it after a warm-up.

    The time holds reading the prepared images and the network, not loading it, decoding files or the recipe.

    Args:
        predictor: the network, loaded.
        images: (n, height, width, planes), uint8, memory-mapped.
        rows: (m,), rows to predict, in any order.
        device: what it computes on, with ``name``, ``kind`` and ``framework``.
        batch_size: images per network call.

    Returns:
        (m,) raw probabilities in the order of ``rows``; and ``images``, ``seconds``, ``images_per_second``,
        ``batch_size`` and ``device`` (its name, kind and framework, None where unknown).
    """
    # One batch of each size that will come: the first call of a size compiles, which is no part of the speed.
    parts = {min(len(rows), CHUNK), len(rows) % CHUNK}
    for count in sorted({size for part in parts for size in (min(part, batch_size), part % batch_size)} - {0}):
        predictor.probabilities(images[rows[:count]], batch_size=batch_size)
    started = time.perf_counter()
    found = predict(predictor, images, rows, batch_size=batch_size)
    seconds = time.perf_counter() - started
    return found, {
        "images": len(rows),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(rows) / seconds, 1),
        "batch_size": batch_size,
        "device": {key: device.get(key) for key in ("name", "kind", "framework")},
    }

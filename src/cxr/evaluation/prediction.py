"""Predictions for rows of prepared images, and how fast a network makes them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

CHUNK = 512
"""Images read and predicted at once: the whole batches of so many, but at least one batch."""


class ImageRows(Protocol):
    """Prepared images by row number: a memory-mapped array, or images that are changed when they are read."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        """Read images, (m, height, width, planes), by their row numbers, (m,)."""


class ProbabilityPredictor(Protocol):
    """What evaluation needs of a network."""

    def probabilities(self, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.float64]:
        """Predict raw probabilities of pneumonia, (n,), for prepared images (n, height, width, planes)."""


def predict_rows(
    predictor: ProbabilityPredictor,
    images: ImageRows,
    rows: NDArray[np.int64],
    *,
    batch_size: int,
    progress: bool = True,
) -> NDArray[np.float64]:
    """Predict some rows of a memory-mapped array without reading the others.

    Args:
        predictor: the network.
        images: (n, height, width, planes), uint8.
        rows: (m,), numbers of the rows to predict, in any order.
        batch_size: images per network call.
        progress: whether to show a progress bar on stderr.

    Returns:
        (m,), raw probabilities in the order of ``rows``.
    """
    probabilities = np.empty(len(rows), dtype=np.float64)
    # Rows are read in the order of the file, so that the disk is read once from start to end.
    order = np.argsort(rows, kind="stable")
    with tqdm(total=len(rows), desc="evaluate", unit="image", disable=None if progress else True) as bar:
        step = max(batch_size, CHUNK - CHUNK % batch_size)
        for start in range(0, len(rows), step):
            chunk = order[start : start + step]
            probabilities[chunk] = predictor.probabilities(images[rows[chunk]], batch_size=batch_size)
            bar.update(len(chunk))
    return probabilities


def predict_with_speed(
    predictor: ProbabilityPredictor,
    images: ImageRows,
    rows: NDArray[np.int64],
    device: Mapping[str, Any],
    *,
    batch_size: int,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Predict rows, and measure the wall-clock time of the whole batches after the first.

    The first batch of a size compiles the network, which is not part of the speed. The last batch may have a size of
    its own. No image is predicted twice, unless there are too few for a second whole batch: then the first one is.

    The time includes reading the prepared images and the network. It excludes loading the network, decoding files and
    applying the recipe. It informs the choice of a network and is not reproducible.

    Args:
        predictor: the network, loaded.
        images: (n, height, width, planes), uint8, memory-mapped.
        rows: (m,), numbers of the rows to predict, in any order.
        device: the device, with ``name``, ``kind`` and ``framework``.
        batch_size: images per network call.

    Returns:
        (m,) raw probabilities in the order of ``rows``; and ``images`` (how many were timed), ``seconds``,
        ``images_per_second``, ``batch_size`` and ``device`` (its name, kind and framework, None where unknown).
    """
    probabilities = np.empty(len(rows), dtype=np.float64)

    def predict(positions: NDArray[np.int64], *, progress: bool) -> float:
        started = time.perf_counter()
        probabilities[positions] = predict_rows(
            predictor, images, rows[positions], batch_size=batch_size, progress=progress
        )
        return time.perf_counter() - started

    order = np.argsort(rows, kind="stable")
    whole_batches = len(rows) - len(rows) % batch_size
    first, timed, last = np.split(order, (batch_size, max(batch_size, whole_batches)))
    predict(first, progress=False)
    if not timed.size:
        timed = first
    seconds = predict(timed, progress=True)
    predict(last, progress=False)
    return probabilities, {
        "images": len(timed),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(timed) / seconds, 1),
        "batch_size": batch_size,
        "device": {key: device.get(key) for key in ("name", "kind", "framework")},
    }

"""The measured speed is that of predicting; compilation at the first call is not part of it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cxr.evaluation.prediction import predict_rows, predict_with_speed

COMPILE_SECONDS = 0.4


class CompilingNetwork:
    """A network that is slow once for each new batch size."""

    def __init__(self) -> None:
        self.compiled_sizes: set[int] = set()
        self.images = 0

    def probabilities(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        self.images += len(images)
        for start in range(0, len(images), batch_size):
            size = len(images[start : start + batch_size])
            if size not in self.compiled_sizes:
                time.sleep(COMPILE_SECONDS)
                self.compiled_sizes.add(size)
        return images.reshape(len(images), -1).mean(axis=1) / 255


@pytest.mark.parametrize(("count", "timed"), [(10, 10), (64, 64), (100, 64), (199, 128), (600, 512)])
def test_the_speed_is_that_of_whole_batches_without_the_first_call_of_a_size(count: int, timed: int) -> None:
    images = np.arange(700).repeat(4).reshape(700, 2, 2, 1).astype(np.uint8)
    rows = np.arange(count)[::-1]
    probabilities, speed = predict_with_speed(
        CompilingNetwork(), images, rows, {"name": "a processor", "cores": 2}, batch_size=64
    )
    assert (probabilities == predict_rows(CompilingNetwork(), images, rows, batch_size=64, progress=False)).all()
    assert 0 <= speed["seconds"] < COMPILE_SECONDS
    assert speed["images"] == timed
    assert speed["images_per_second"] > timed / COMPILE_SECONDS
    assert speed["device"] == {"name": "a processor", "kind": None, "framework": None}


@pytest.mark.parametrize(("count", "expected"), [(199, 199), (128, 128), (100, 164), (30, 60)])
def test_only_images_too_few_for_two_whole_batches_are_predicted_twice(count: int, expected: int) -> None:
    network = CompilingNetwork()
    predict_with_speed(network, np.zeros((count, 2, 2, 1), np.uint8), np.arange(count), {}, batch_size=64)
    assert network.images == expected


@pytest.mark.parametrize("batch_size", [100, 600])
def test_every_batch_but_the_last_is_whole(batch_size: int) -> None:
    network = CompilingNetwork()
    predict_rows(network, np.zeros((1250, 2, 2, 1), np.uint8), np.arange(1250), batch_size=batch_size, progress=False)
    assert network.compiled_sizes == {batch_size, 50}

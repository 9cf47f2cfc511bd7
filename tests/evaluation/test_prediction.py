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

    def probabilities(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        for start in range(0, len(images), batch_size):
            size = len(images[start : start + batch_size])
            if size not in self.compiled_sizes:
                time.sleep(COMPILE_SECONDS)
                self.compiled_sizes.add(size)
        return images.reshape(len(images), -1).mean(axis=1) / 255


@pytest.mark.parametrize("count", [10, 64, 600])
def test_the_first_call_of_each_size_is_left_out(count: int) -> None:
    images = np.arange(700).repeat(4).reshape(700, 2, 2, 1).astype(np.uint8)
    rows = np.arange(count)[::-1]
    probabilities, speed = predict_with_speed(
        CompilingNetwork(), images, rows, {"name": "a processor", "cores": 2}, batch_size=64
    )
    assert (probabilities == predict_rows(CompilingNetwork(), images, rows, batch_size=64, progress=False)).all()
    assert 0 <= speed["seconds"] < COMPILE_SECONDS
    assert speed["images"] == count
    assert speed["images_per_second"] > count / COMPILE_SECONDS
    assert speed["device"] == {"name": "a processor", "kind": None, "framework": None}

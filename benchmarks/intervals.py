"""Intervals of an evaluation: time and peak memory by the number of test images.

The replicates of the bootstrap come in blocks of a fixed memory, so that memory grows with the images alone. Memory is
what Python and numpy have allocated at most, in MiB. Time is the processor's, for all replicates of params.yaml, and is
computed from those of a few blocks.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from per_image import core_seconds, line

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.evaluation.bootstrap import MAX_BLOCK_BYTES, draw_weights
from cxr.evaluation.evaluate import EvaluationSettings, evaluate

SIZES = (1_000, 10_000, 100_000)
REPLICATES = (250, 250, 40)
"""Replicates that are computed for each size: a block at least."""


def main() -> None:
    """Print a line per size, then the costs that docs/scale.md is computed from."""
    params = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
    resamples = params["evaluate"]["resamples"]
    print(f"{'test images':>12}{'in a block':>12}{'core seconds':>16}{'peak MiB':>12}")
    seconds = peak = 0.0
    for images, replicates in zip(SIZES, REPLICATES, strict=True):
        rows = drawn_predictions(images)
        block = len(next(draw_weights(rows["group"].iloc[:images], resamples=resamples, seed=0)))
        seconds = core_seconds(lambda rows=rows, count=replicates: judge(rows, count)) * resamples / replicates
        peak = peak_memory(rows, replicates)
        print(f"{images:>12,}{block:>12,}{seconds:>16.1f}{peak / 2**20:>12.0f}", flush=True)
    print()
    line("evaluate, intervals of an image", 1e3 * seconds / (2 * SIZES[-1]), "ms")
    line("evaluate, a block of replicates", MAX_BLOCK_BYTES / 2**20, "MiB")
    # One replicate: what does not depend on their number.
    line("evaluate, memory for a test image", peak_memory(drawn_predictions(SIZES[-1]), 1) / SIZES[-1], "bytes")


def drawn_predictions(images: int) -> pd.DataFrame:
    """Draw the predictions of a model.

    Args:
        images: images of validation, and of test; two of each patient.

    Returns:
        The columns that :func:`cxr.evaluation.evaluate.evaluate` needs.
    """
    generator = np.random.default_rng(0)
    number = np.arange(2 * images)
    sick = generator.random(2 * images) < 0.7
    return pd.DataFrame(
        {
            "path": [f"{place}.jpeg" for place in number],
            "group": [f"p{place // 2}" for place in number],
            "label": np.where(sick, PNEUMONIA, NORMAL),
            "subtype": np.where(sick, "bacteria", "normal"),
            "split": np.where(number < images, "validation", "test"),
            "probability_raw": np.clip(generator.normal(0.3 + 0.4 * sick, 0.2), 0, 1),
        }
    )


def judge(rows: pd.DataFrame, replicates: int) -> None:
    """Evaluate a model, without slices.

    Args:
        rows: its predictions.
        replicates: number of bootstrap replicates.
    """
    settings = EvaluationSettings(
        "sensitivity", 0.95, (), replicates, seed=0, bins=15, coverage=None, slices=(), slice_min_patients=1
    )
    evaluate(rows, settings)


def peak_memory(rows: pd.DataFrame, replicates: int) -> int:
    """Measure what an evaluation allocates.

    Args:
        rows: predictions of a model.
        replicates: number of bootstrap replicates.

    Returns:
        Largest sum of allocated bytes, without the predictions themselves.
    """
    tracemalloc.start()
    judge(rows, replicates)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()

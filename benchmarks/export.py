"""ONNX Runtime beside TensorFlow on the CPU: seconds of a network call for one image and for 32, per network.

Run it with ``python benchmarks/export.py [NETWORK ...]``; ``make onnx`` installs what it needs. The networks are
untrained: speed does not depend on weights. Both run in turn in one process, with all cores, so that their ratio is
valid on any machine. Calls are those of `cxr predict` and `cxr serve`, with the last layer and the calibration, and
without decoding and preparing, whose time for one image stands beside them.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cxr.data.phantom.dataset import PhantomPlan, draw_image
from cxr.export.onnx_file import OnnxNetwork, write_onnx
from cxr.export.probability_network import probability_network
from cxr.images.decoding import decode_grey
from cxr.images.recipes import Recipe, apply_recipe, recipe_named
from cxr.inference.predictor import Predictor
from cxr.models.backend import load_keras
from cxr.models.metadata import ModelMetadata
from cxr.models.networks import NETWORKS

RECIPES = {"residual_separable": "s0_clahe_bilateral", "shallow": "s1_resize", "three_block": "s2_resize"}
"""Recipes of the networks that do not take that of S4."""
ROUNDS = {1: 20, 32: 5}
"""Images of a call to the number of calls; the median counts."""


def main() -> None:
    """Print the table."""
    load_keras()
    print(f"milliseconds per call, median; {os.cpu_count()} cores; request: preparing one image and its call\n")
    titles = [f"{title} {count}" for count in ROUNDS for title in ("TensorFlow", "ONNX", "ratio")]
    print(f"{'':<20}" + "".join(f"{title:>14}" for title in (*titles, "prepare", "request ratio", "difference")))
    data = draw_image(PhantomPlan("test", "bacteria", 1, 0, "drawn.jpeg"), seed=0).data
    for name in sys.argv[1:] or NETWORKS:
        predictor = untrained(name, recipe_named(RECIPES.get(name, "s4_resize")))
        with tempfile.TemporaryDirectory() as scratch:
            measure(name, predictor, data, Path(scratch) / "model.onnx")


def untrained(name: str, recipe: Recipe) -> Predictor:
    """Build a predictor that is as fast as a trained one.

    Args:
        name: name of the network.
        recipe: its recipe.

    Returns:
        The predictor, with a calibration.
    """
    from cxr.models.networks import build_network

    dataset = {"name": "none", "kind": "phantom"}
    metadata = ModelMetadata(name, recipe.system, recipe.to_dict(), recipe.input_shape, 0, 0, dataset, "", "", "")
    return Predictor(build_network(name, recipe.input_shape), metadata.with_calibration(1.0, 0.5, "none"))


def measure(name: str, predictor: Predictor, data: bytes, path: Path) -> None:
    """Print one line of the table.

    Args:
        name: name of the network.
        predictor: the model.
        data: file of an image.
        path: where to write the ONNX file.
    """
    write_onnx(probability_network(predictor), path)
    network = OnnxNetwork(path, threads=None)
    recipe = predictor.recipe
    prepared = apply_recipe(recipe, decode_grey(data))
    (preparing,) = medians(ROUNDS[1], lambda: apply_recipe(recipe, decode_grey(data)))
    cells, difference, single_image = [], 0.0, (0.0, 0.0)
    for count, rounds in ROUNDS.items():
        images = np.repeat(prepared[None], count, axis=0)

        def with_tensorflow(images: np.ndarray = images) -> np.ndarray:
            return predictor.calibrated(predictor.probabilities(images))

        def with_onnx(images: np.ndarray = images) -> np.ndarray:
            return network.probabilities({recipe.name: images})

        difference = max(difference, float(np.abs(with_tensorflow() - with_onnx()).max()))
        tensorflow, onnx = medians(rounds, with_tensorflow, with_onnx)
        single_image = single_image if count > 1 else (tensorflow, onnx)
        cells += [f"{1e3 * tensorflow:.1f}", f"{1e3 * onnx:.1f}", f"{tensorflow / onnx:.2f}"]
    request = (preparing + single_image[0]) / (preparing + single_image[1])
    cells += [f"{1e3 * preparing:.1f}", f"{request:.2f}", f"{difference:.0e}"]
    print(f"{name:<20}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


def medians(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Time pieces of work in turn.

    Args:
        rounds: how often each is done.
        works: the pieces of work; each is done once before.

    Returns:
        Seconds of each, the median.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, times in zip(works, seconds, strict=True):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in seconds]


if __name__ == "__main__":
    main()

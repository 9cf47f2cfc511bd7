"""Speed of `cxr predict` on a folder, compared with decoding, preprocessing and network calls without it.

Run it with ``python benchmarks/scoring.py [FOLDER or TAR] [--images 200]``. Without a source it uses the full-size
sample beside the repository if it exists, else it draws phantoms. The networks are untrained: speed does not
depend on weights. Both ways run in turn, so that their ratio is valid on any machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np

from cxr.data.phantom.dataset import draw_dataset
from cxr.images.decoding import decode_grey
from cxr.images.reading_options import STRICT
from cxr.images.recipes import RECIPES, apply_recipe
from cxr.inference.predictor import BATCH_SIZE, Predictor
from cxr.inference.scoring.batch import ScoringModel, score
from cxr.inference.scoring.sources import FolderImages
from cxr.inference.scoring.table import TableParts
from cxr.models.backend import load_keras
from cxr.models.metadata import ModelMetadata

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "kermany-originals-sample.tar"
NETWORKS = {"three_block": "s2_resize", "mobilenetv2": "s4_resize"}
"""A small network, and one that needs most of the time itself."""
ROUNDS = 3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=SAMPLE if SAMPLE.exists() else None)
    parser.add_argument("--images", type=int, default=200, help="images to score; files are repeated to get there")
    arguments = parser.parse_args()
    load_keras()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        if arguments.source is None:
            draw_dataset(data, images=60, seed=0)
        elif arguments.source.is_file():
            shutil.unpack_archive(arguments.source, data)
        else:
            data = arguments.source
        images = Path(scratch) / "images"
        images.mkdir()
        for number, path in zip(range(arguments.images), cycle(sorted(data.rglob("*.jpeg"))), strict=False):
            shutil.copyfile(path, images / f"{number:06d}.jpeg")
        print(f"{arguments.images} images, {os.cpu_count()} cores; images/s, median of {ROUNDS}\n")
        print(f"{'':<14}{'bare':>8}{'cxr predict':>13}{'ratio':>8}")
        for network, recipe in NETWORKS.items():
            measure(network, untrained(network, recipe), images, Path(scratch))


def untrained(network: str, recipe: str) -> Predictor:
    """Build a predictor that is as fast as a trained one.

    Args:
        network: name of the network.
        recipe: name of its recipe.

    Returns:
        The predictor, with a calibration.
    """
    from cxr.models.networks import build_network

    settings = RECIPES[recipe]
    metadata = ModelMetadata(
        network,
        settings.system,
        settings.to_dict(),
        settings.input_shape,
        0,
        0,
        {"name": "none", "kind": "phantom"},
        "",
        "",
        "",
    )
    return Predictor(build_network(network, settings.input_shape), metadata.with_calibration(1.0, 0.5, "none"))


def measure(name: str, predictor: Predictor, images: Path, scratch: Path) -> None:
    """Print one line of the table.

    Args:
        name: name of the network.
        predictor: the model.
        images: folder of images.
        scratch: folder for results.
    """
    paths = sorted(images.iterdir())

    def bare() -> None:
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(paths), BATCH_SIZE):
                batch = paths[start : start + BATCH_SIZE]
                prepared = pool.map(lambda path: apply_recipe(predictor.recipe, decode_grey(path.read_bytes())), batch)
                predictor.probabilities(np.stack(list(prepared)))

    def whole() -> None:
        source = FolderImages(images)
        parts = TableParts(scratch / "parts", source.files, name, 512)
        score(source, ScoringModel(predictor), parts, options=STRICT, workers=None, batch_size=BATCH_SIZE)
        parts.join(scratch / "rows.parquet")
        parts.remove()

    bare()  # compiles the network
    rounds = [(seconds(bare), seconds(whole)) for _ in range(ROUNDS)]
    bare_rate, whole_rate = (len(paths) / statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"{name:<14}{bare_rate:>8.1f}{whole_rate:>13.1f}{bare_rate / whole_rate:>8.2f}")


def seconds(function: Callable[[], object]) -> float:
    """Time one call.

    Args:
        function: what to time.

    Returns:
        Wall-clock seconds.
    """
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

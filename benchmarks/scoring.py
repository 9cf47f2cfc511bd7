"""`cxr predict` on a folder, against bare decoding, preprocessing and network calls in the same process.

Run it with ``python benchmarks/scoring.py [FOLDER or TAR] [--images 200]``. Without a source it takes the full-size
sample beside the repository if it is there, else it draws phantoms. The networks are untrained: speed does not
depend on weights. Both ways take turns, so that their ratio holds on any machine.
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
from cxr.images.recipes import RECIPES, apply
from cxr.inference.predictor import BATCH_SIZE, Predictor
from cxr.inference.scoring.files import FolderFiles
from cxr.inference.scoring.parts import Parts
from cxr.inference.scoring.score import Answering, score
from cxr.models.backend import load_keras
from cxr.models.metadata import ModelCard

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "kermany-originals-sample.tar"
NETWORKS = {"three_block": "s2_resize", "mobilenetv2": "s4_resize"}
"""A small network, and one that takes most of the time itself."""
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
            draw_dataset(data, images=60)
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
    """Build a predictor that answers as fast as a trained one.

    Args:
        network: name of the network.
        recipe: name of its recipe.

    Returns:
        The predictor, with a calibration.
    """
    from cxr.models.networks import build

    known = RECIPES[recipe]
    card = ModelCard(
        network, known.system, known.to_dict(), known.input_shape, 0, 0, {"name": "none", "kind": "phantom"}, "", "", ""
    )
    return Predictor(build(network, known.input_shape), card.completed(1.0, 0.5, "none"))


def measure(name: str, predictor: Predictor, images: Path, scratch: Path) -> None:
    """Print one line of the table.

    Args:
        name: name of the network.
        predictor: what answers.
        images: folder of images.
        scratch: folder for results.
    """
    paths = sorted(images.iterdir())

    def bare() -> None:
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(paths), BATCH_SIZE):
                batch = paths[start : start + BATCH_SIZE]
                prepared = pool.map(lambda path: apply(predictor.recipe, decode_grey(path.read_bytes())), batch)
                predictor.probabilities(np.stack(list(prepared)))

    def whole() -> None:
        files = FolderFiles(images)
        parts = Parts(scratch / "parts", files.entries, name, 512)
        score(files, Answering(predictor), parts, batch_size=BATCH_SIZE)
        parts.join(scratch / "rows.parquet")
        parts.remove()

    bare()  # compiles the network
    rounds = [(seconds(bare), seconds(whole)) for _ in range(ROUNDS)]
    one, other = (len(paths) / statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"{name:<14}{one:>8.1f}{other:>13.1f}{one / other:>8.2f}")


def seconds(work: Callable[[], object]) -> float:
    """Time one call.

    Args:
        work: what to time.

    Returns:
        Wall-clock seconds.
    """
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

"""Images per second of every recipe and of decoding alone, with one worker and with all cores.

Run it with ``python benchmarks/preprocessing.py [FOLDER or TAR] [--images 200]``. Without a source it uses
the full-size sample beside the repository if it exists, and otherwise draws phantoms. All rates of a table come from
one run, so their ratios hold on any machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2

from cxr.data.phantom.dataset import draw_dataset
from cxr.images.decoding import decode_grey
from cxr.images.preparation import prepare_images
from cxr.images.recipes import RECIPES

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "kermany-originals-sample.tar"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=SAMPLE if SAMPLE.exists() else None)
    parser.add_argument("--images", type=int, default=200, help="largest number of images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.source
        if data is None:
            data = Path(scratch) / "data"
            draw_dataset(data, images=min(arguments.images, 60), seed=0)
        elif data.is_file():
            shutil.unpack_archive(data, Path(scratch) / "data")
            data = Path(scratch) / "data"
        paths = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.jpeg"))[: arguments.images]
        measure(data, paths, Path(scratch) / "prepared")


def measure(data: Path, paths: list[str], folder: Path) -> None:
    """Time decoding and every recipe.

    Args:
        data: folder of the images.
        paths: images, relative to it.
        folder: scratch folder for the results.
    """
    cores = os.cpu_count() or 1
    pixels = sum(decode_grey((data / path).read_bytes()).size for path in paths) / len(paths) / 1e6
    print(f"{len(paths)} images of {pixels:.2f} megapixels on average, {cores} cores; images/s\n")
    print(f"{'':<24}{'1 worker':>10}{f'{cores} workers':>12}{'gain':>7}{'x decoding':>12}")
    cv2.setNumThreads(1)

    def decode(workers: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(lambda path: decode_grey((data / path).read_bytes()).size, paths):
                pass

    decoding_rate = rate(lambda: decode(1), len(paths))
    print_row("decoding to grey", decoding_rate, rate(lambda: decode(cores), len(paths)), decoding_rate)
    for name, recipe in RECIPES.items():
        one_worker, all_cores = (
            rate(
                lambda recipe=recipe, workers=workers: prepare_images(
                    data, paths, recipe, folder, workers=workers, progress=False
                ),
                len(paths),
            )
            for workers in (1, cores)
        )
        print_row(name, one_worker, all_cores, decoding_rate)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak:.0f} MiB")


def rate(function: Callable[[], object], images: int) -> float:
    """Time one call.

    Args:
        function: the function to call.
        images: number of images that it handles.

    Returns:
        Images per second.
    """
    start = time.perf_counter()
    function()
    return images / (time.perf_counter() - start)


def print_row(name: str, one_worker: float, all_cores: float, decoding_rate: float) -> None:
    """Print one line of the table.

    Args:
        name: the operation.
        one_worker: images per second with one worker.
        all_cores: images per second with a worker per core.
        decoding_rate: images per second of decoding with one worker.
    """
    ratios = f"{all_cores / one_worker:>7.2f}{one_worker / decoding_rate:>12.3f}"
    print(f"{name:<24}{one_worker:>10.1f}{all_cores:>12.1f}{ratios}")


if __name__ == "__main__":
    main()

"""Images per second of decoding and of every recipe, each beside the least that its OpenCV calls take.

Run it with ``python benchmarks/preprocessing.py [FOLDER or TAR] [--images 200] [--rounds 3]``. Without a source it uses
the full-size sample beside the repository if it exists, and otherwise draws phantoms. All rates of a table come from
one run in which the rows take turns, and the best of a row counts, so their ratios hold on any machine. With one worker
time is the processor's, which other work on the machine changes little; with one worker per core it is the clock's.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.data.image_folder import ImageFolder
from cxr.data.phantom.dataset import draw_dataset
from cxr.images.decoding import decode_grey
from cxr.images.preparation import prepare_images
from cxr.images.recipes import RECIPES

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "kermany-originals-sample.tar"
OPENCV, DECODING = "cv2.imread to grey", "decode_grey"
S0, S0_SOURCE, S0_FLOOR = "s0_clahe_bilateral", "S0, its source's code", "S0, OpenCV's calls alone"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: the operation.
        work: does it for all images with a number of workers.
        peer: name of the row that it is compared with.
    """

    name: str
    work: Callable[[int], object]
    peer: str


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=SAMPLE if SAMPLE.exists() else None)
    parser.add_argument("--images", type=int, default=200, help="largest number of images")
    parser.add_argument("--rounds", type=int, default=3, help="how often each row is measured; the best counts")
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
        measure(data, paths, Path(scratch) / "prepared", arguments.rounds)


def measure(data: Path, paths: list[str], folder: Path, rounds: int) -> None:
    """Time decoding, the peers and every recipe, with one worker and with one per core.

    Args:
        data: folder of the images.
        paths: images, relative to it.
        folder: scratch folder for the results.
        rounds: how often each row is measured.
    """
    cores = os.cpu_count() or 1
    files = [data / path for path in paths]
    pixels = sum(decode_grey(file.read_bytes()).size for file in files) / len(files) / 1e6
    cv2.setNumThreads(1)

    def in_threads(function: Callable[[Path], object]) -> Callable[[int], object]:
        return partial(call_in_threads, function, files)

    def prepare(recipe: str) -> Callable[[int], object]:
        return lambda workers: prepare_images(
            ImageFolder(data), paths, RECIPES[recipe], folder, workers=workers, progress=False
        )

    rows = [
        Row(OPENCV, in_threads(lambda file: cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)), OPENCV),
        Row(DECODING, in_threads(lambda file: decode_grey(file.read_bytes())), OPENCV),
        Row(S0_SOURCE, in_threads(prepare_s0_as_its_source), S0_SOURCE),
        Row(S0_FLOOR, in_threads(prepare_s0_with_opencv_alone), S0_SOURCE),
        *(Row(name, prepare(name), S0_FLOOR if name == S0 else DECODING) for name in RECIPES),
    ]
    one_worker, all_cores = (
        # Decoding is quick and its rows are close to each other: they take more turns.
        measure_in_turns(rows[:2], len(files), workers, 5 * rounds)
        | measure_in_turns(rows[2:], len(files), workers, rounds)
        for workers in (1, cores)
    )
    print(f"{len(files)} images of {pixels:.2f} megapixels on average, {cores} cores; images/s, best of {rounds}\n")
    print(f"{'':<26}{'1 worker':>10}{f'{cores} workers':>12}{'gain':>7}   1 worker compared with")
    for row in rows:
        rate, gain = one_worker[row.name], all_cores[row.name] / one_worker[row.name]
        compared = "" if row.peer == row.name else f"   {rate / one_worker[row.peer]:.3f} x {row.peer}"
        print(f"{row.name:<26}{rate:>10.1f}{all_cores[row.name]:>12.1f}{gain:>7.2f}{compared}")
    print(f"\n{S0} with {cores} workers: {all_cores[S0] / one_worker[S0_SOURCE]:.2f} x {S0_SOURCE}, 1 worker")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:.0f} MiB")


def measure_in_turns(rows: list[Row], images: int, workers: int, rounds: int) -> dict[str, float]:
    """Time the rows one after the other, again and again, so that other work on the machine slows none of them alone.

    Args:
        rows: what to time.
        images: number of images that each handles.
        workers: threads. One is timed by the processor, more are timed by the clock.
        rounds: how often.

    Returns:
        Name to the best rate, images per second.
    """
    now = time.process_time if workers == 1 else time.perf_counter
    rates = dict.fromkeys((row.name for row in rows), 0.0)
    for _ in range(rounds):
        for row in rows:
            start = now()
            row.work(workers)
            rates[row.name] = max(rates[row.name], images / (now() - start))
    return rates


def call_in_threads(function: Callable[[Path], object], files: list[Path], workers: int) -> None:
    """Call a function for each file and forget what it returns.

    Args:
        function: the function.
        files: its arguments.
        workers: threads.
    """
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda file: function(file) is None, files):
            pass


def prepare_s0_as_its_source(file: Path) -> NDArray[np.float64]:
    """Prepare an image as the authors of S0 do: the three channels of the file, equal or not.

    Args:
        file: the image.

    Returns:
        ``(299, 299, 3)``, 0 to 1.
    """
    clahe = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(4, 4))
    colours = cv2.merge([clahe.apply(channel) for channel in cv2.split(cv2.imread(str(file)))])
    return cv2.resize(cv2.bilateralFilter(colours, 8, 80, 80), (299, 299)) / 255


def prepare_s0_with_opencv_alone(file: Path) -> NDArray[np.uint8]:
    """Make the OpenCV calls that S0's recipe needs on one channel, and no others: the floor of its time.

    Args:
        file: the image.

    Returns:
        uint8 ``(299, 299)``.
    """
    clahe = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(4, 4))
    grey = clahe.apply(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
    smooth = cv2.bilateralFilter(grey, 8, 80 / 3, 80)
    return cv2.resize(smooth, (299, 299), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()

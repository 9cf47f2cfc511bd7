"""What one image costs in the steps, in time of one core: figures behind docs/scale.md.

Run it with ``python benchmarks/per_image.py [FOLDER or TAR]``. Without a source it takes the full-size sample beside
the repository if it is there, else it draws phantoms. Time is the processor's, the shortest of some tries, so that
other work on the machine changes it little. ``manifest_rows.py`` measures the work on the rows of a manifest,
``duplicates.py`` and ``intervals.py`` what does not grow in proportion.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from cxr.data.dataset import NORMAL, OFFICIAL_SPLITS
from cxr.data.image_folder import ImageFolder
from cxr.data.manifest.builder import build_manifest, read_manifest
from cxr.data.phantom.dataset import draw_dataset
from cxr.freed_memory import keep_freed_memory
from cxr.images.decoding import MAX_BYTES, ImageLimits
from cxr.images.reading_options import STRICT
from cxr.images.recipes import recipe_named
from cxr.models.backend import load_keras

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SAMPLE = SHARED / "kermany-originals-sample.tar"
WHOLE = SHARED / "kermany224.tar"
"""The whole public set, small: shows how alike radiographs of different patients are."""
TIMES = 3
LIMITS = ImageLimits(STRICT, MAX_BYTES, min_side=64, max_aspect=4.0, colour_tolerance=8)
NEAR_DISTANCE = 8
MANIFEST_PARAMETERS: dict[str, Any] = {
    "limits": LIMITS,
    "naming": "kermany",
    "policy": {},
    "near_distance": NEAR_DISTANCE,
}


def main() -> None:
    """Print one line per cost."""
    keep_freed_memory()  # as the steps do that train and evaluate
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=SAMPLE if SAMPLE.exists() else None)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.source is None:
            data = Path(scratch) / "data"
            draw_dataset(data, images=60, seed=0)
        else:
            data = unpacked(arguments.source, Path(scratch) / "data")
        look = partial(
            build_manifest,
            ImageFolder(data),
            Path(scratch),
            workers=1,
            progress=False,
            **MANIFEST_PARAMETERS,
        )
        look()
        manifest = read_manifest(Path(scratch))
        count = len(manifest)
        megapixels = (manifest["width"] * manifest["height"]).mean() / 1e6
        print(f"{count} images of {megapixels:.2f} megapixels and {manifest['bytes'].mean() / 1e3:.0f} KB on average\n")
        looked = core_seconds(look, TIMES)
        line("validate, look at an image", 1e3 * looked / count, "ms")
        files = [data / path for path in manifest["path"]]
        floor = core_seconds(lambda: [read_hash_and_decode(file) for file in files], TIMES)
        line("of it: read, hash and decode to grey once", 1e3 * floor / count, "ms")
    of_networks()


def read_hash_and_decode(file: Path) -> None:
    """Do the least that looking at an image needs, with the libraries alone.

    Args:
        file: the image.
    """
    content = file.read_bytes()
    hashlib.sha256(content).digest()
    cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)


def unpacked(source: Path, folder: Path) -> Path:
    """Find images, unpacking them first if need be.

    Args:
        source: folder or archive.
        folder: where to unpack.

    Returns:
        The folder with the class folders in it, alone or in train, val and test.
    """
    if source.is_dir():
        return source
    shutil.unpack_archive(source, folder)
    data_folder = next(folder.rglob(NORMAL)).parent
    return data_folder.parent if data_folder.name in OFFICIAL_SPLITS else data_folder


def line(what: str, value: float, unit: str) -> None:
    """Print one cost.

    Args:
        what: step and work.
        value: how much.
        unit: unit of it.
    """
    print(f"{what:<44}{value:>12,.3f} {unit}", flush=True)


def core_seconds(work: Callable[[], object], times: int = 1) -> float:
    """Time of all cores together that some work takes.

    Args:
        work: what to time.
        times: how often it is done; the shortest time counts.

    Returns:
        Seconds.
    """
    seconds = []
    for _ in range(times):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def of_networks(batches: int = 2) -> None:
    """Print what an image costs in the networks of params.yaml, without augmentation.

    Args:
        batches: batches that count.
    """
    load_keras()
    from cxr.models.networks import build_network

    params = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
    generator = np.random.default_rng(1)
    for name, entry in params["models"].items():
        recipe = recipe_named(entry["recipe"], **params["recipes"][entry["recipe"]])
        size = entry["batch_size"]
        network = build_network(entry["architecture"], recipe.input_shape)
        network.compile(entry["optimizer"], "mean_squared_error", jit_compile=False)
        images = generator.random((size, *recipe.input_shape)).astype(np.float32)
        labels = np.zeros((size, network.output_shape[-1]), np.float32)
        for what, work in (
            ("train", lambda network=network, x=images, y=labels: network.train_on_batch(x, y)),
            ("predict with", lambda network=network, x=images: network.predict_on_batch(x)),
        ):
            work()
            seconds = core_seconds(lambda work=work: [work() for _ in range(batches)], TIMES)
            line(f"{what} {name}", 1e3 * seconds / (batches * size), "ms")


if __name__ == "__main__":
    main()

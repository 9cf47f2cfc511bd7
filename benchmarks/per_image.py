"""What one image costs in the steps, in time of one core and in memory: the figures behind docs/scale.md.

Run it with ``python benchmarks/per_image.py [FOLDER or TAR]``. Without a source it takes the full-size sample beside
the repository if it is there, else it draws phantoms. Time is the processor's, the shortest of some tries, so that
other work on the machine changes it little. What grows with the number of rows is measured at two sizes; the slope
counts. ``duplicates.py`` and ``intervals.py`` measure what does not grow in proportion.
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
import pandas as pd
import yaml

from cxr.data.checks import acceptance, expectations
from cxr.data.checks.drift import BaselineStatistics, DriftLimits, compare_datasets
from cxr.data.checks.rules import CheckBounds
from cxr.data.dataset import NORMAL, OFFICIAL_SPLITS, DatasetCard
from cxr.data.exploration.report import write_report
from cxr.data.image_folder import ImageFolder
from cxr.data.manifest.builder import build_manifest, read_manifest
from cxr.data.phantom.dataset import draw_dataset
from cxr.data.splitting import assign_splits
from cxr.images.decoding import MAX_BYTES, ImageLimits
from cxr.images.reading_options import STRICT
from cxr.images.recipes import recipe_named
from cxr.models.backend import load_keras

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SAMPLE = SHARED / "kermany-originals-sample.tar"
WHOLE = SHARED / "kermany224.tar"
"""The whole public set, small: shows how alike radiographs of different patients are."""
ROWS = (1_000, 6_000)
"""Rows of the two sizes at which costs that grow with them are measured."""
TIMES = 3
LIMITS = ImageLimits(STRICT, MAX_BYTES, min_side=64, max_aspect=4.0, colour_tolerance=8)
NEAR_DISTANCE = 8
MANIFEST_PARAMETERS: dict[str, Any] = {
    "limits": LIMITS,
    "naming": "kermany",
    "policy": {},
    "near_distance": NEAR_DISTANCE,
}
BOUNDS = CheckBounds(50.0, 64, 4.0, min_pneumonia_share=0.1, max_pneumonia_share=0.9, max_quarantined_share=0.05)
SPLIT_PARAMETERS: dict[str, Any] = {
    "protocol": "grouped",
    "ratios": (0.70, 0.15, 0.15),
    "seed": 9,
    "sample": {},
    "max_deviation": 1.0,
}
CARD = DatasetCard("sample", "patients", "a benchmark", 0, 0, "none")


def main() -> None:
    """Print one line per cost."""
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
        of_rows(manifest, data, Path(scratch))
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


def slope(work: Callable[[int], object]) -> float:
    """Seconds of a core that one more row takes.

    Args:
        work: called with a number of rows.

    Returns:
        Seconds.
    """
    few, many = (core_seconds(lambda rows=rows: work(rows)) for rows in ROWS)
    return (many - few) / (ROWS[1] - ROWS[0])


def repeated(manifest: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Lengthen a manifest to many different images, two of each patient.

    Args:
        manifest: rows to repeat.
        rows: how many are wanted.

    Returns:
        Rows with paths, contents and patients of their own.
    """
    generator = np.random.default_rng(0)
    frame = manifest[manifest["status"] == "accepted"].sample(rows, replace=True, random_state=0)
    number = np.arange(rows)
    return frame.reset_index(drop=True).assign(
        path=[f"{label}/{place:08d}.jpeg" for label, place in zip(frame["label"], number, strict=True)],
        sha256=[f"{place:064x}" for place in number],
        patient=[f"{label}-{place // 2}" for label, place in zip(frame["label"], number, strict=True)],
        duplicate_group=pd.NA,
        near_group=pd.NA,
        copies=1,
        mean=frame["mean"].to_numpy() + generator.normal(0, 5, rows),
    )


def of_rows(manifest: pd.DataFrame, data: Path, scratch: Path) -> None:
    """Print what a row of the manifest costs.

    Args:
        manifest: rows of real images.
        data: their folder.
        scratch: folder for reports.
    """
    tables = {rows: repeated(manifest, rows) for rows in ROWS}

    def report(rows: int) -> None:
        frame, folder = tables[rows], scratch / f"report{rows}"
        digest = "0" * 64
        compared = compare_datasets(
            BaselineStatistics.from_manifest(frame, CARD, digest), None, DriftLimits(0.1, 0.05, 0.01)
        )
        results = expectations.run_checks(
            frame.__getitem__, compared, folder / "docs", card=CARD, bounds=BOUNDS, severities={}, run_name="rows"
        )
        acceptance.write_checks(results, digest, folder)
        # The report shows a few images, whatever the number: here those of the sample.
        shown = frame.assign(path=manifest["path"].sample(rows, replace=True, random_state=0).to_numpy())
        write_report(
            folder / "exploration.html",
            shown,
            shown.head(0),
            shown.head(0),
            ImageFolder(data),
            CARD,
            results,
            compared,
            digest=digest,
            max_pixels=STRICT.max_pixels,
            seed=0,
        )

    report(ROWS[0])  # what is loaded and drawn the first time does not count
    line("validate, checks and reports of a row", 1e3 * slope(report), "ms")
    line("validate, a row of the manifest in memory", tables[ROWS[1]].memory_usage(deep=True).sum() / ROWS[1], "bytes")
    size = (scratch / f"report{ROWS[1]}" / "exploration.html").stat().st_size / 2**20
    line(f"validate, the page of {ROWS[1]:,} images", size, "MiB")
    line("resplit, a row", 1e3 * slope(lambda rows: assign_splits(tables[rows], **SPLIT_PARAMETERS)), "ms")


def of_networks(batches: int = 2) -> None:
    """Print what an image costs in the networks of params.yaml, with its augmentation.

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

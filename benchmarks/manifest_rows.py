"""Memory and time of the work on the rows of a manifest, for many invented rows and without their images.

Run it with ``python benchmarks/manifest_rows.py [ROWS]``. The rows have patients, classes and sizes as the public set,
one file in a hundred is a copy, one in a thousand is left out. All work happens in one process, as in `validate` and
`resplit`. Memory is what the process holds for itself at most, looked at every fiftieth of a second, in MB; time is the
processor's. The search for near hashes is measured by ``duplicates.py``.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd
from growth import private_bytes
from per_image import BOUNDS, CARD, SPLIT_PARAMETERS

from cxr.data.checks import acceptance, expectations
from cxr.data.checks.drift import BASELINE_COLUMNS, BaselineStatistics, DriftLimits, compare_datasets
from cxr.data.exploration.report import IMAGE_COLUMNS, LISTED_COLUMNS, write_report
from cxr.data.image_folder import ImageFolder
from cxr.data.manifest.builder import MANIFEST_DTYPES, content_digest, read_manifest
from cxr.data.manifest.copies import count_copies
from cxr.data.manifest.row_file import RowFile
from cxr.data.split_table import check_split, write_split
from cxr.data.splitting import MANIFEST_COLUMNS, assign_splits
from cxr.files import MANIFEST_FILE
from cxr.tables import read_table

BLOCK = 2**16
ADDED = ("copies", "labels_of_hash", "near_group", "duplicate_group", "labels_of_group", "splits_of_patient")
ACCEPTED = ("status", "=", "accepted")
IMAGE = "image.png"

Result = TypeVar("Result")


class OneImage(ImageFolder):
    """Has the same image under every name."""

    def read(self, name: str, *, max_bytes: int | None = None) -> bytes:
        """Read the image."""
        return super().read(IMAGE, max_bytes=max_bytes)


def main() -> None:
    """Print a line for each kind of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{rows:,} rows\n\n{'':<44}{'core seconds':>14}{'peak MB':>10}", flush=True)
        validate(rows, folder)
        resplit(folder)


def measured(what: str, work: Callable[[], Result]) -> Result:
    """Do some work, and print its time and the largest memory of the process meanwhile."""
    gc.collect()
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.process_time()
    result = work()
    seconds = time.process_time() - started
    done.set()
    watcher.join()
    print(f"{what:<44}{seconds:>14.1f}{max(peak, private_bytes()) / 1e6:>10,.0f}", flush=True)
    return result


def validate(rows: int, folder: Path) -> None:
    """Do what `validate` does with rows."""
    measured("validate: write rows, count copies", lambda: build(rows, folder))
    read = partial(read_manifest, folder)
    digest = measured("validate: digest", lambda: content_digest(read(("path", "sha256"))))

    def compare():
        statistics = BaselineStatistics.from_manifest(read(BASELINE_COLUMNS), CARD, digest)
        return compare_datasets(statistics, statistics, DriftLimits(0.1, 0.05, 0.01))

    comparison = measured("validate: drift", compare)
    results = measured(
        "validate: checks",
        lambda: expectations.run_checks(
            lambda name: read((name,))[name],
            comparison,
            folder / "docs",
            card=CARD,
            bounds=BOUNDS,
            severities={},
            run_name="rows",
        ),
    )

    def report() -> None:
        # The report shows a few images, whatever the number.
        shown = [
            read(IMAGE_COLUMNS, where=[ACCEPTED]),
            read((*IMAGE_COLUMNS, "sha256"), where=[ACCEPTED, ("duplicate_group", "!=", "")]),
        ]
        cv2.imwrite(str(folder / IMAGE), np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
        left_out = read(LISTED_COLUMNS, where=[("status", "!=", "accepted")])
        page = folder / "exploration.html"
        images = OneImage(folder)
        write_report(page, *shown, left_out, images, CARD, results, comparison, digest=digest, max_pixels=10**6, seed=0)

    measured("validate: report", report)
    measured(
        "validate: summary",
        lambda: acceptance.write_summary(read(acceptance.SUMMARY_COLUMNS), digest, CARD, folder),
    )


def resplit(folder: Path) -> None:
    """Do what `resplit` does."""
    manifest = measured("resplit: read", lambda: read_table(folder / MANIFEST_FILE, MANIFEST_COLUMNS, [ACCEPTED]))
    splits = measured("resplit: assign", lambda: assign_splits(manifest, **SPLIT_PARAMETERS))
    measured("resplit: check", lambda: check_split(splits, manifest))
    measured("resplit: write", lambda: write_split(splits, {}, folder))


def build(rows: int, folder: Path) -> None:
    """Write an invented manifest as :func:`cxr.data.manifest.builder.build_manifest` does, names in memory included."""
    names: list[str] = []
    with RowFile(folder) as row_file:
        for table in invented_rows(rows):
            names += table["path"].tolist()
            row_file.append(table)
        copies = count_copies(row_file.read, lambda _codes, _load: [], lambda _position: np.empty(0, np.uint8))
        row_file.write(folder / MANIFEST_FILE, copies, list(MANIFEST_DTYPES))


def invented_rows(rows: int) -> Iterator[pd.DataFrame]:
    """Invent rows in the order of their paths; two images of each patient, a quarter without pneumonia."""
    generator = np.random.default_rng(0)
    of_image = {name: kind for name, kind in MANIFEST_DTYPES.items() if name not in ADDED}
    for start in range(0, rows, BLOCK):
        number = np.arange(start, min(start + BLOCK, rows))
        count = len(number)
        is_normal = number < rows // 4
        label = np.where(is_normal, "NORMAL", "PNEUMONIA")
        content = np.where(number % 100 == 99, number - 1, number)
        is_left_out = number % 1000 == 500
        series = np.where(is_normal, "IM", "bacteria")
        files = zip(label, series, number.tolist(), strict=True)
        table = {
            "path": [f"train/{name}/{kind}-{place:08d}.jpeg" for name, kind, place in files],
            "sha256": [f"{place * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4 for place in content.tolist()],
            "bytes": generator.integers(5_000, 9_000, count),
            "label": label,
            "subtype": np.where(is_normal, "normal", "bacteria"),
            "series": series,
            "patient": [f"{kind}-{place // 2}" for kind, place in zip(series, number.tolist(), strict=True)],
            "official_split": "train",
            "width": 1_200,
            "height": 1_000,
            "mode": "L",
            "bit_depth": 8,
            "grey": True,
            "readable": True,
            "problem": np.where(is_left_out, "blank", ""),
            "detail": np.where(is_left_out, "expected an image, received one grey level", ""),
            "status": np.where(is_left_out, "quarantined", "accepted"),
            "mean": generator.normal(120, 10, count),
            "std": generator.normal(55, 5, count),
            "phash": [f"{place * 0xD1B54A32D192ED03 % 2**64:016x}" for place in content.tolist()],
            "sharpness": generator.normal(300, 30, count),
            "gradient_ratio": generator.normal(1.0, 0.05, count),
        }
        yield pd.DataFrame(table).astype(of_image)


if __name__ == "__main__":
    main()

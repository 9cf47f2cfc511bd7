"""Memory and time of the work on the rows of a manifest, for many invented rows and without their images.

Run it with ``python benchmarks/manifest_rows.py [ROWS ...]``. The rows have patients, classes and sizes as the public
set, one file in a hundred is a copy, one in a thousand is left out. The work of `validate` happens in one process, and
that of `resplit` in another, as in the steps. Memory is what the process holds for itself at most, looked at every
fiftieth of a second, in MB; time is the processor's. The search for near hashes is measured by ``duplicates.py``.

``--write`` writes the figures to the table in docs/scale.md, where those of other numbers of rows stay.
``--folder FOLDER`` keeps the manifest there, and a later call does not write it again; ``--part resplit`` does the work
of one step alone.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pandas as pd
from growth import private_bytes
from pyarrow import parquet
from row_figures import RowWork, write_rows
from scale import PAGE

from cxr.data.checks import acceptance, expectations
from cxr.data.checks.drift import BASELINE_COLUMNS, BaselineStatistics, DatasetComparison, DriftLimits, compare_datasets
from cxr.data.checks.rules import CheckBounds, CheckResult
from cxr.data.dataset import DatasetCard
from cxr.data.exploration.report import LISTED_COLUMNS, REPEATED_COLUMNS, write_report
from cxr.data.image_folder import ImageFolder
from cxr.data.manifest.builder import MANIFEST_DTYPES, content_digest, read_manifest
from cxr.data.manifest.copies import count_copies
from cxr.data.manifest.file_names import FileNames
from cxr.data.manifest.row_file import RowFile
from cxr.data.split_table import check_split, write_split
from cxr.data.splitting import MANIFEST_COLUMNS, assign_splits
from cxr.files import MANIFEST_FILE
from cxr.tables import read_table

BOUNDS = CheckBounds(50.0, 64, 4.0, min_pneumonia_share=0.1, max_pneumonia_share=0.9, max_quarantined_share=0.05)
SPLIT_PARAMETERS: dict[str, Any] = {
    "protocol": "grouped",
    "ratios": (0.70, 0.15, 0.15),
    "seed": 9,
    "sample": {},
    "max_deviation": 1.0,
}
CARD = DatasetCard("sample", "patients", "a benchmark", 0, 0, "none")
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
    """Measure each number of rows, and print a line for each kind of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=[1_000_000])
    parser.add_argument("--part", choices=PARTS, help="do the work of this step alone")
    parser.add_argument("--folder", type=Path, help="keep the manifest in this folder; else it is temporary")
    parser.add_argument("--write", action="store_true", help="write the figures to docs/scale.md")
    arguments = parser.parse_args()
    for rows in arguments.rows:
        print(f"{rows:,} rows\n\n{'':<60}{'core seconds':>14}{'peak MB':>10}", flush=True)
        with tempfile.TemporaryDirectory() as name:
            folder = arguments.folder or Path(name)
            folder.mkdir(exist_ok=True)
            for step in [arguments.part] if arguments.part else PARTS:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    works = pool.submit(PARTS[step], rows, folder).result()
                if arguments.write:
                    page = PAGE.read_text(encoding="utf-8")
                    PAGE.write_text(write_rows(page, rows, works), encoding="utf-8")


class Meter:
    """Measures the work of a step.

    Attributes:
        step: name of the step.
        works: core seconds and largest memory of the process, in MB, by step and name of the work.
    """

    def __init__(self, step: str) -> None:
        self.step = step
        self.works: dict[RowWork, tuple[float, float]] = {}

    def __call__(self, name: str, work: Callable[[], Result]) -> Result:
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
        try:
            result = work()
        finally:
            done.set()
        seconds = time.process_time() - started
        watcher.join()
        megabytes = max(peak, private_bytes()) / 1e6
        print(f"{f'{self.step}: {name}':<60}{seconds:>14.1f}{megabytes:>10,.0f}", flush=True)
        self.works[self.step, name] = seconds, megabytes
        return result


def validate(rows: int, folder: Path) -> Mapping[RowWork, tuple[float, float]]:
    """Do what `validate` does with rows."""
    measured = Meter("validate")
    if not (folder / MANIFEST_FILE).exists():
        measured("write rows, count copies, write the manifest", lambda: build(rows, folder))
    demand_rows(rows, folder)
    read = partial(read_manifest, folder)
    read_accepted = partial(read, where=[ACCEPTED])
    digest = measured("digest", lambda: content_digest(read(("path", "sha256"))))

    def column(name: str) -> pd.Series:
        return read((name,))[name]

    def take_statistics() -> BaselineStatistics:
        return BaselineStatistics.from_manifest(read(BASELINE_COLUMNS), CARD, digest)

    measured("statistics of an accepted data set", lambda: take_statistics().write(folder / "baseline"))

    def compare() -> DatasetComparison:
        current = take_statistics()
        accepted = BaselineStatistics.read(folder / "baseline", CARD.kind)
        return compare_datasets(current, accepted, DriftLimits(0.1, 0.05, 0.01))

    comparison = measured("drift", compare)

    def check() -> list[CheckResult]:
        results = expectations.run_checks(
            column,
            comparison,
            folder / "docs",
            card=CARD,
            bounds=BOUNDS,
            severities={},
            run_name="rows",
        )
        acceptance.write_checks(results, digest, folder)
        return results

    results = measured("checks", check)

    def report() -> None:
        # The report shows a few images, whatever the number.
        cv2.imwrite(str(folder / IMAGE), np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
        write_report(
            folder / "exploration.html",
            read_accepted,
            read(REPEATED_COLUMNS, where=[ACCEPTED, ("duplicate_group", "!=", "")]),
            read(LISTED_COLUMNS, where=[("status", "!=", "accepted")]),
            OneImage(folder),
            CARD,
            results,
            comparison,
            digest=digest,
            max_pixels=10**6,
            seed=0,
        )

    measured("report", report)

    def summarize() -> None:
        acceptance.write_summary(column, digest, CARD, folder)
        acceptance.log_outcome(results, column)

    measured("summary", summarize)
    return measured.works


def resplit(rows: int, folder: Path) -> Mapping[RowWork, tuple[float, float]]:
    """Do what `resplit` does."""
    measured = Meter("resplit")
    demand_rows(rows, folder)
    manifest = measured("read", lambda: read_table(folder / MANIFEST_FILE, MANIFEST_COLUMNS, [ACCEPTED]))
    splits = measured("assign", partial(assign_splits, manifest, **SPLIT_PARAMETERS))
    measured("check", partial(check_split, splits, manifest))
    del manifest
    measured("write", lambda: write_split(splits, {}, folder))
    return measured.works


def demand_rows(rows: int, folder: Path) -> None:
    """Stop unless the manifest in a folder has so many rows."""
    file = folder / MANIFEST_FILE
    count = parquet.read_metadata(file).num_rows if file.exists() else 0
    if count != rows:
        raise SystemExit(f"expected a manifest of rows={rows}, received {file} with rows={count}; run without --part")


PARTS = {"validate": validate, "resplit": resplit}
"""Steps whose work is measured, each in a process of its own."""


def build(rows: int, folder: Path) -> None:
    """Write an invented manifest as :func:`cxr.data.manifest.builder.build_manifest` does, names in memory included."""
    names = FileNames()
    with RowFile(folder) as row_file:
        for table in invented_rows(rows):
            names.extend(table["path"])
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

"""The exploration report: one HTML file that shows a data set, without scripts or anything from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from cxr.data.checks.drift import DatasetComparison
from cxr.data.checks.rules import CheckResult
from cxr.data.dataset import PNEUMONIA, DatasetCard
from cxr.data.exploration import plots, thumbnails
from cxr.data.exploration.shortcuts import ALL_FACTS, CAUTION_AUROC, SHORTCUT_COLUMNS, shortcut_aurocs
from cxr.files import write_text
from cxr.images.problems import TRAINING_PROBLEMS
from cxr.images.raw_images import RawImages

REPEATED_COLUMNS = ("path", "sha256", "label", "patient", "official_split", "duplicate_group")
"""Columns of a manifest that the report shows of images in a group of duplicates."""

LISTED_COLUMNS = ("path", "problem", "detail", "status")
"""The same of the files that were left out."""

Columns = Callable[[Sequence[str]], pd.DataFrame]
"""Reads columns of the accepted images of a manifest, one row per image."""

_MAX_LISTED = 100


def write_report(
    page: Path,
    read: Columns,
    repeated: pd.DataFrame,
    left_out: pd.DataFrame,
    raw: RawImages,
    card: DatasetCard,
    results: Sequence[CheckResult],
    comparison: DatasetComparison,
    *,
    digest: str,
    max_pixels: int,
    seed: int,
) -> None:
    """Write the exploration report of a data set.

    Each part of it reads the columns that it shows: all of them take several gigabytes for ten million images.

    Args:
        page: file to write.
        read: reads columns of the accepted images.
        repeated: accepted images in a group of duplicates, with :data:`REPEATED_COLUMNS`.
        left_out: all other files, with :data:`LISTED_COLUMNS`.
        raw: the raw images, for thumbnails.
        card: card of the data set.
        results: outcomes of :func:`cxr.data.checks.expectations.run_checks`.
        comparison: outcome of :func:`cxr.data.checks.drift.compare_datasets`.
        digest: content version of the data.
        max_pixels: largest number of pixels to decode.
        seed: seed of the sampled images and of the classifiers of shortcuts.
    """

    def images(*columns: str) -> pd.DataFrame:
        table = read(columns)
        return table.assign(subtype=table["subtype"].fillna("unknown")) if "subtype" in columns else table

    patients = images("label", "patient")
    count, numbers = len(patients), _headline_numbers(patients, left_out, results)
    del patients
    environment = Environment(
        loader=PackageLoader("cxr.data.exploration"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("exploration.html").render(
        card=card,
        digest=digest,
        numbers=numbers,
        results=results,
        failed=[result for result in results if result.stops],
        comparison=comparison,
        drift_rows=comparison.table.to_dict("records"),
        left_out=left_out.head(_MAX_LISTED).to_dict("records"),
        more_left_out=max(0, len(left_out) - _MAX_LISTED),
        problems=TRAINING_PROBLEMS,
        **(_image_sections(images, repeated, raw, max_pixels, seed) if count else {}),
    )
    write_text(page, html)


def _headline_numbers(
    images: pd.DataFrame, left_out: pd.DataFrame, results: Sequence[CheckResult]
) -> list[tuple[str, str]]:
    """Give the headline numbers with their names."""
    outcomes = [result.outcome for result in results]
    failed, warned = outcomes.count("failed"), outcomes.count("warning")
    problems = [f"{failed} failed"] if failed else []
    problems += [f"{warned} warning{'s' if warned > 1 else ''}"] if warned else []
    share = (images["label"] == PNEUMONIA).mean() if len(images) else float("nan")
    return [
        (f"{len(images):,}", "images accepted"),
        (f"{images['patient'].nunique():,}", "patients"),
        (f"{share:.0%}" if len(images) else "unknown", "with pneumonia"),
        (f"{len(left_out):,}", "files left out"),
        (", ".join(problems) or "all passed", f"of {len(results)} checks"),
    ]


def _image_sections(
    images: Callable[..., pd.DataFrame], repeated: pd.DataFrame, raw: RawImages, max_pixels: int, seed: int
) -> dict[str, Any]:
    """Make the plots and thumbnails of the accepted images; ``images`` reads the columns that it is called with."""
    aurocs = shortcut_aurocs(images(*SHORTCUT_COLUMNS), seed=seed)
    strong = aurocs[aurocs >= CAUTION_AUROC].drop(ALL_FACTS, errors="ignore")
    groups = repeated["duplicate_group"].value_counts()
    groups = groups[groups > 1]
    return {
        "shares": plots.draw_subtype_shares(images("subtype")),
        "splits": plots.draw_official_splits(images("official_split", "subtype")),
        "patients": plots.draw_images_per_patient(images("label", "patient")),
        "sizes": plots.draw_image_sizes(images("width", "height", "label")),
        "one_size": _name_of_one_size(images("width", "height")),
        "bytes": plots.draw_histogram(images("bytes", "label"), "bytes", "file size, KB", scale=1000.0),
        "brightness": plots.draw_histogram(images("mean", "label"), "mean", "mean grey level, 0 to 255"),
        "contrast": plots.draw_histogram(images("std", "label"), "std", "standard deviation of grey levels"),
        "shortcuts": plots.draw_shortcut_aurocs(aurocs),
        "strong_shortcuts": [f"{name} ({value:.2f})" for name, value in strong.items()],
        "all_together": f"{aurocs.iloc[-1]:.2f}",
        "averages": thumbnails.average_images(images("label", "path"), raw, max_pixels=max_pixels, seed=seed),
        "samples": thumbnails.sample_images(
            images("label", "subtype", *thumbnails.CAPTION_COLUMNS), raw, max_pixels=max_pixels, seed=seed
        ),
        "duplicates": thumbnails.show_duplicates(repeated, raw, max_pixels=max_pixels),
        "duplicate_files": int(groups.sum()),
        "duplicate_groups": len(groups),
        "odd": thumbnails.show_unusual_modes(
            images("mode", "grey", "label", *thumbnails.CAPTION_COLUMNS), raw, max_pixels=max_pixels
        ),
    }


def _name_of_one_size(images: pd.DataFrame) -> str:
    """Name the size that all images have; ``""`` if they have several."""
    sizes = images.drop_duplicates()
    return f"{sizes['width'].iloc[0]} x {sizes['height'].iloc[0]}" if len(sizes) == 1 else ""

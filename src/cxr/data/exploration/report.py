"""The exploration report: one HTML file that shows a data set, without scripts or anything from outside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from cxr.data.checks.drift import Comparison
from cxr.data.checks.rules import CheckResult
from cxr.data.dataset import PNEUMONIA, DatasetCard
from cxr.data.exploration import images as pictures
from cxr.data.exploration import plots
from cxr.data.exploration.shortcuts import CAUTION, shortcut_aurocs
from cxr.images.decoding import MAX_PIXELS, TRAINING_PROBLEMS

_LISTED = 100


def write_report(
    page: Path,
    manifest: pd.DataFrame,
    data: Path,
    card: DatasetCard,
    results: Sequence[CheckResult],
    comparison: Comparison,
    *,
    digest: str,
    max_pixels: int = MAX_PIXELS,
    seed: int = 0,
) -> None:
    """Write the exploration report of a data set.

    Args:
        page: file to write.
        manifest: one row per file; see :func:`cxr.data.manifest.builder.build_manifest`.
        data: the data folder, for thumbnails.
        card: card of the data set.
        results: outcomes of :func:`cxr.data.checks.expectations.validate`.
        comparison: outcome of :func:`cxr.data.checks.drift.compare`.
        digest: content version of the data.
        max_pixels: largest number of pixels to decode.
        seed: seed of the choice of samples.
    """
    accepted = manifest[manifest["status"] == "accepted"]
    images = accepted.assign(subtype=accepted["subtype"].fillna("unknown")).reset_index(drop=True)
    left_out = manifest[manifest["status"] != "accepted"]
    environment = Environment(
        loader=PackageLoader("cxr.data.exploration"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("exploration.html").render(
        card=card,
        digest=digest,
        numbers=_numbers(images, left_out, results),
        results=results,
        failed=[result for result in results if result.stops],
        comparison=comparison,
        drift_rows=comparison.table.to_dict("records"),
        left_out=left_out.head(_LISTED).to_dict("records"),
        more_left_out=max(0, len(left_out) - _LISTED),
        problems=TRAINING_PROBLEMS,
        **(_content(images, data, max_pixels, seed) if len(images) else {}),
    )
    page.write_text(text, encoding="utf-8")


def _numbers(images: pd.DataFrame, left_out: pd.DataFrame, results: Sequence[CheckResult]) -> list[tuple[str, str]]:
    """Headline numbers with their names."""
    outcomes = [result.outcome for result in results]
    failed, warned = outcomes.count("failed"), outcomes.count("warning")
    found = [f"{failed} failed"] if failed else []
    found += [f"{warned} warning{'s' if warned > 1 else ''}"] if warned else []
    share = (images["label"] == PNEUMONIA).mean() if len(images) else float("nan")
    return [
        (f"{len(images):,}", "images accepted"),
        (f"{images['patient'].nunique():,}", "patients"),
        (f"{share:.0%}" if len(images) else "unknown", "with pneumonia"),
        (f"{len(left_out):,}", "files left out"),
        (", ".join(found) or "all passed", f"of {len(results)} checks"),
    ]


def _content(images: pd.DataFrame, data: Path, max_pixels: int, seed: int) -> dict[str, Any]:
    """Plots and pictures of the accepted images."""
    aurocs = shortcut_aurocs(images, seed=seed)
    sizes = images[["width", "height"]].drop_duplicates()
    groups = images.loc[images["duplicate_group"].fillna("") != "", "duplicate_group"].value_counts()
    repeated = groups[groups > 1]
    return {
        "shares": plots.shares(images),
        "splits": plots.splits(images),
        "patients": plots.images_per_patient(images),
        "sizes": plots.sizes(images),
        "one_size": f"{sizes['width'].iloc[0]} x {sizes['height'].iloc[0]}" if len(sizes) == 1 else "",
        "bytes": plots.histogram(images, "bytes", "file size, KB", scale=1000.0),
        "brightness": plots.histogram(images, "mean", "mean grey level, 0 to 255"),
        "contrast": plots.histogram(images, "std", "standard deviation of grey levels"),
        "shortcuts": plots.shortcuts(aurocs),
        "strong_shortcuts": [
            f"{name} ({value:.2f})" for name, value in aurocs.items() if value >= CAUTION and name != "all together"
        ],
        "all_together": f"{aurocs.iloc[-1]:.2f}",
        "averages": pictures.averages(images, data, max_pixels=max_pixels, seed=seed),
        "samples": pictures.samples(images, data, max_pixels=max_pixels, seed=seed),
        "duplicates": pictures.duplicates(images, data, max_pixels=max_pixels),
        "duplicate_files": int(repeated.sum()),
        "duplicate_groups": len(repeated),
        "odd": pictures.odd_modes(images, data, max_pixels=max_pixels),
    }

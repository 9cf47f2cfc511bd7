"""Validate: look at every file, check the whole set, and report; a critical finding stops the pipeline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cxr.steps.base import Keeps, Reads, Step, Writes

Share = Annotated[float, Field(ge=0, le=1)]
Action = Literal["accept", "quarantine", "refuse"]
Severity = Literal["critical", "warning", "off"]
Problem = Literal[
    "symlink",
    "special",
    "unreadable",
    "empty",
    "too_large",
    "not_an_image",
    "truncated",
    "corrupt",
    "animated",
    "cmyk",
    "misplaced",
    "misnamed",
    "mislabelled",
    "depth_16",
    "blank",
    "too_small",
    "aspect",
    "wrong_suffix",
    "colour",
]
CheckName = Literal[
    "complete",
    "refused",
    "decodable",
    "known_class",
    "known_name",
    "shortest_side",
    "megapixels",
    "aspect",
    "left_out",
    "labelled",
    "pneumonia_share",
    "grey_content",
    "usual_mode",
    "copies",
    "lookalikes",
    "labels_of_picture",
    "splits_of_picture",
    "splits_of_patient",
    "test_patients",
    "drift",
]


class Validate(Step):
    """Write the manifest of the raw images with its checks, Data Docs and exploration report."""

    name: ClassVar[str] = "validate"
    sections: ClassVar[tuple[str, ...]] = ("validate",)

    data: Annotated[Path, Reads("Dataset"), Field(description="Folder of the raw images.")] = Path("data")
    manifest: Annotated[
        Path, Writes("Manifest"), Field(description="Folder of the manifest: one row per file, and counts.")
    ] = Path("artifacts/manifest")
    report: Annotated[
        Path,
        Writes("DataReport"),
        Field(description="Folder of the reports: exploration.html, data_docs/index.html, checks.json."),
    ] = Path("artifacts/data_report")
    baseline: Annotated[
        Path, Keeps("Baseline"), Field(description="Statistics of the last accepted data set of each kind.")
    ] = Path("artifacts/baseline")
    rejected: Annotated[
        Path, Keeps("Rejection"), Field(description="Reports of a data set that was rejected, to look at.")
    ] = Path("artifacts/rejected")

    naming: Annotated[
        Literal["kermany", "any"],
        Field(
            description="kermany: label, subtype and patient from the file name. any: the patient from "
            "patients.csv in the data folder, or else the file name."
        ),
    ] = "kermany"
    policy: Annotated[
        dict[Problem, Action],
        Field(
            description="Problem of a file to what happens: accept, quarantine (left out, listed) or refuse "
            "(the run stops); where not given, colour is accepted and all others are quarantined."
        ),
    ] = Field(default={})
    severity: Annotated[
        dict[CheckName, Severity],
        Field(description="Check to critical, warning or off, where it differs from the default."),
    ] = Field(default={})
    max_megapixels: Annotated[float, Field(gt=0, description="Largest image, millions of pixels.")] = 50.0
    max_megabytes: Annotated[float, Field(gt=0, description="Largest file, millions of bytes.")] = 200.0
    min_side: Annotated[int, Field(ge=1, description="Shortest allowed side, pixels.")] = 64
    max_aspect: Annotated[float, Field(ge=1, description="Largest ratio of longer to shorter side.")] = 4.0
    colour_tolerance: Annotated[
        int,
        Field(ge=0, le=255, description="A pixel is coloured if its channels differ by more grey levels."),
    ] = 8
    near_distance: Annotated[
        int, Field(ge=0, le=24, description="Bits of 64 in which hashes of near duplicates may differ.")
    ] = 8
    min_pneumonia_share: Annotated[Share, Field(description="Smallest share of PNEUMONIA.")] = 0.1
    max_pneumonia_share: Annotated[Share, Field(description="Largest share of PNEUMONIA.")] = 0.9
    max_quarantined_share: Annotated[Share, Field(description="Largest share of files left out.")] = 0.05
    drift_distance: Annotated[
        Share, Field(description="Largest Kolmogorov-Smirnov distance of a class's statistic.")
    ] = 0.1
    drift_shares: Annotated[
        Share, Field(description="Largest total variation distance of class or subtype shares.")
    ] = 0.05
    drift_significance: Annotated[
        Share, Field(description="A distance counts as drift only if chance gives it more rarely than this.")
    ] = 0.01
    accept_drift: Annotated[
        bool, Field(description="Take this data set as the new measure of drift although it drifted.")
    ] = False
    seed: Annotated[int, Field(ge=0, description="Chooses the images that the report shows.")] = 0
    workers: Annotated[int, Field(ge=0, description="Threads that read images; 0: one per core.")] = 0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_pneumonia_share > self.max_pneumonia_share:
            raise ValueError("min_pneumonia_share at most max_pneumonia_share")
        return self

    def run(self) -> None:
        """Build the manifest, check it, write the reports; stop if a critical check failed."""
        from cxr.data.checks import acceptance, expectations
        from cxr.data.checks.drift import Baseline, DriftLimits, compare
        from cxr.data.checks.rules import Bounds
        from cxr.data.dataset import DatasetCard
        from cxr.data.exploration import report
        from cxr.data.manifest.builder import build_manifest, content_digest, write_manifest
        from cxr.files import EXPLORATION_FILE
        from cxr.images.decoding import Limits

        card = DatasetCard.read(self.data)
        limits = Limits(
            max_pixels=round(self.max_megapixels * 1e6),
            max_bytes=round(self.max_megabytes * 1e6),
            min_side=self.min_side,
            max_aspect=self.max_aspect,
            colour_tolerance=self.colour_tolerance,
        )
        bounds = Bounds(
            max_megapixels=self.max_megapixels,
            min_side=self.min_side,
            max_aspect=self.max_aspect,
            min_pneumonia_share=self.min_pneumonia_share,
            max_pneumonia_share=self.max_pneumonia_share,
            max_quarantined_share=self.max_quarantined_share,
        )
        manifest = build_manifest(
            self.data,
            limits=limits,
            naming=self.naming,
            policy=dict(self.policy.items()),
            near_distance=self.near_distance,
            workers=self.workers or os.cpu_count(),
        )
        digest = content_digest(manifest)
        now = Baseline.of(manifest, card, digest)
        drift_limits = DriftLimits(self.drift_distance, self.drift_shares, self.drift_significance)
        comparison = compare(now, Baseline.read(self.baseline, card.kind), drift_limits)
        results = expectations.validate(
            manifest,
            comparison,
            self.report / acceptance.DOCS_NAME,
            card=card,
            bounds=bounds,
            severities=dict(self.severity.items()),
            run_name=digest[:12],
        )
        acceptance.write_checks(results, digest, self.report)
        report.write_report(
            self.report / EXPLORATION_FILE,
            manifest,
            self.data,
            acceptance.completed(card, manifest),
            results,
            comparison,
            digest=digest,
            max_pixels=limits.max_pixels,
            seed=self.seed,
        )
        write_manifest(manifest, self.manifest)
        acceptance.write_summary(manifest, digest, acceptance.completed(card, manifest), self.manifest)
        acceptance.require(results, manifest, (self.manifest, self.report), self.rejected)
        acceptance.announce(results, manifest)
        if self.accept_drift or not comparison.drifted:
            now.write(self.baseline)

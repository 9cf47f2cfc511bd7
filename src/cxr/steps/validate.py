"""Step validate: inspect every file, check the data set, and report; a failed critical check stops the pipeline."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cxr.errors import RegistryError
from cxr.files import EXPLORATION_FILE
from cxr.images.shards import Shard
from cxr.steps.base import TRAIN_IMAGE, Input, Output, Step, WorkingFolder
from cxr.steps.inspection_fields import InspectionStep
from cxr.steps.shard_fields import ShardedStep
from cxr.steps.tracking_fields import TrackingStep

if TYPE_CHECKING:
    import pandas as pd

    from cxr.images.raw_images import RawImages

log = logging.getLogger(__name__)

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
    "modality",
    "no_pixels",
    "photometric",
    "raw",
    "not_frontal",
    "unsupported",
    "misplaced",
    "misnamed",
    "mislabelled",
    "depth_16",
    "other_modality",
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
    "usual_modality",
    "usual_mode",
    "copies",
    "lookalikes",
    "labels_of_picture",
    "splits_of_picture",
    "splits_of_patient",
    "test_patients",
    "drift",
]


class Validate(TrackingStep, ShardedStep, InspectionStep):
    """Write the manifest of the raw images with its checks, Data Docs and exploration report."""

    name: ClassVar[str] = "validate"
    follows: ClassVar[str] = "fetch"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "cache", "processes", "reading", "validate")
    sections_without_effect: ClassVar[tuple[str, ...]] = ("tracking", "cache", "processes")
    container_image: ClassVar[str | None] = TRAIN_IMAGE  # with MLflow, for the reports of rejected data
    ignored_keys: ClassVar[frozenset[str]] = frozenset({"scale_16_bit"})
    retryable: ClassVar[bool] = False  # what it rejects, it would reject again
    reads_images: ClassVar[bool] = True

    image_results: Annotated[
        Path | None,
        Input("ImageResults", optional=True),
        Field(description="Folder with one folder for each shard that validate_shard wrote; null: look at all images."),
    ] = None
    manifest: Annotated[
        Path, Output("Manifest"), Field(description="Folder of the manifest: one row per file, and counts.")
    ] = Path("artifacts/manifest")
    report: Annotated[
        Path,
        Output("DataReport"),
        Field(description="Folder of the reports: exploration.html, data_docs/index.html, checks.json."),
    ] = Path("artifacts/data_report")
    baseline: Annotated[
        Path, WorkingFolder("Baseline"), Field(description="Statistics of the last accepted data set of each kind.")
    ] = Path("artifacts/baseline")
    rejected: Annotated[Path, WorkingFolder("Rejection"), Field(description="Reports of a rejected data set.")] = Path(
        "artifacts/rejected"
    )

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
            description="Problem of a file to action: accept, quarantine (the file is left out and listed) or refuse "
            "(the run stops). Default: colour and other_modality are accepted, all others are quarantined."
        ),
    ] = Field(default={})
    severity: Annotated[
        dict[CheckName, Severity],
        Field(description="Check to critical, warning or off, where it differs from the default."),
    ] = Field(default={})
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
        Share, Field(description="A distance counts as drift only if its p-value is smaller than this.")
    ] = 0.01
    accept_drift: Annotated[
        bool, Field(description="Accept this data set as the new baseline although it drifted.")
    ] = False
    seed: Annotated[int, Field(ge=0, description="Chooses the images that the report shows.")] = 0

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.min_pneumonia_share > self.max_pneumonia_share:
            raise ValueError("min_pneumonia_share at most max_pneumonia_share")
        return self

    def step_of_shard(self, shard: Shard, folder: Path) -> Step:
        """Look at a part of the images."""
        from cxr.steps import load_step

        shared = self.model_dump(include=set(InspectionStep.model_fields))
        threads = self.threads_of_shard(self.workers or None)
        values = {**shared, "workers": threads, "results": folder, "shard": str(shard)}
        return load_step("validate_shard").build(values)

    def run(self) -> None:
        """Build the manifest, check it, write the reports; stop if a critical check failed."""
        with self.open_images(self.data) as images:
            self._validate(images)

    def _validate(self, images: RawImages) -> None:
        from cxr.data.checks import acceptance
        from cxr.data.checks.drift import BASELINE_COLUMNS, BaselineStatistics, DriftLimits, compare_datasets
        from cxr.data.checks.expectations import run_checks
        from cxr.data.checks.rules import CheckBounds
        from cxr.data.dataset import DatasetCard
        from cxr.data.exploration.report import LISTED_COLUMNS, REPEATED_COLUMNS, write_report
        from cxr.data.manifest.builder import build_manifest, content_digest, read_manifest

        dataset_card = DatasetCard.read(self.data)
        with self.results_of_shards(self.image_results) as shards, self.open_cache(shards) as cache:
            build_manifest(
                images,
                self.manifest,
                limits=self.image_limits,
                naming=self.naming,
                policy=dict(self.policy.items()),
                near_distance=self.near_distance,
                workers=self.workers or None,
                cache=cache,
            )
        # Each part of the work reads the columns that it looks at: all of them take 4 GB for ten million files.
        read = partial(read_manifest, self.manifest)
        digest = content_digest(read(("path", "sha256")))

        def column(name: str) -> pd.Series[Any]:
            return read((name,))[name]

        def take_statistics() -> BaselineStatistics:
            return BaselineStatistics.from_manifest(read(BASELINE_COLUMNS), dataset_card, digest)

        comparison = compare_datasets(
            take_statistics(),
            BaselineStatistics.read(self.baseline, dataset_card.kind),
            DriftLimits(self.drift_distance, self.drift_shares, self.drift_significance),
        )
        results = run_checks(
            column,
            comparison,
            self.report / acceptance.DATA_DOCS_FOLDER,
            card=dataset_card,
            bounds=CheckBounds(
                max_megapixels=self.max_megapixels,
                min_side=self.min_side,
                max_aspect=self.max_aspect,
                min_pneumonia_share=self.min_pneumonia_share,
                max_pneumonia_share=self.max_pneumonia_share,
                max_quarantined_share=self.max_quarantined_share,
            ),
            severities=dict(self.severity.items()),
            run_name=digest[:12],
        )
        acceptance.write_checks(results, digest, self.report)
        card = acceptance.complete_card(dataset_card, column)
        write_report(
            self.report / EXPLORATION_FILE,
            partial(read, where=[("status", "=", "accepted")]),
            read(REPEATED_COLUMNS, where=[("status", "=", "accepted"), ("duplicate_group", "!=", "")]),
            read(LISTED_COLUMNS, where=[("status", "!=", "accepted")]),
            images,
            card,
            results,
            comparison,
            digest=digest,
            max_pixels=self.image_limits.options.max_pixels,
            seed=self.seed,
        )
        acceptance.write_summary(column, digest, card, self.manifest)
        outputs = (self.manifest, self.report)
        acceptance.stop_if_rejected(results, column, outputs, self.rejected, self._publish_rejection)
        acceptance.log_outcome(results, column)
        if self.accept_drift or not comparison.drifted:
            take_statistics().write(self.baseline)

    def _publish_rejection(self, checks: str) -> str:
        """Log the reports of rejected data to a server, since a container and its folders are gone when it ends.

        Args:
            checks: text of the failed checks.

        Returns:
            Where the reports are; empty if there is no server, or it does not take them: the rejection stays the error.
        """
        store = self.store
        if store is None or not store.is_server:
            return ""
        from cxr.tracking.rejected_data import log_rejected_data

        try:
            return log_rejected_data(store, self.experiment, self.rejected, checks)
        except RegistryError as error:
            log.warning("the reports of the rejected data are not in MLflow: %s", error)
            return ""

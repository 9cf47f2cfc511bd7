"""Judge: measure a finished model on labelled images from elsewhere; nothing is fitted on them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from cxr.errors import RegistryError
from cxr.images.reading_options import MAX_PIXELS
from cxr.steps.base import Input, Output
from cxr.steps.drift_fields import WindowLimitsStep
from cxr.steps.model_fields import FixedModelStep
from cxr.steps.reading_fields import ReadingStep
from cxr.steps.registry_fields import REGISTRATION_KEYS
from cxr.steps.slice_fields import SliceColumns, SliceMinPatients

if TYPE_CHECKING:
    from cxr.data.label_table import ImageLabels
    from cxr.external_validation.data import OutsideData
    from cxr.external_validation.slices import OutsideSlices
    from cxr.lineage.version_lineage import Lineage
    from cxr.serving.served_model import ServedModel

log = logging.getLogger(__name__)


def _name_keys_as_text(words: object) -> object:
    """YAML reads the word ``1`` as a number."""
    return {str(word): label for word, label in words.items()} if isinstance(words, Mapping) else words


class Judge(WindowLimitsStep, FixedModelStep, ReadingStep):
    """Judge a model on labelled images from elsewhere, with its own threshold and calibration."""

    name: ClassVar[str] = "judge"
    follows: ClassVar[str] = "predict"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "reading", "drift", "judge")
    ignored_keys: ClassVar[frozenset[str]] = REGISTRATION_KEYS | {"experiment", "since", "until", "on_drift"}

    labels: Annotated[
        Path | None,
        Input("Labels", optional=True),
        Field(description="CSV file with a path and findings per image; null: class folders NORMAL and PNEUMONIA."),
    ] = None
    judgement: Annotated[
        Path,
        Output("Judgement"),
        Field(
            description="Folder to write figures, predictions, plots and JUDGEMENT.md to, e.g. "
            "artifacts/judgements/NAME, where `cxr results` looks."
        ),
    ]

    data: Annotated[str, Field(min_length=1, description="Images: a folder, a tar or zip file, or s3://bucket/prefix.")]
    data_name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_.-]+$", description="Short name of the data set in reports; auto: its own.")
    ] = "auto"
    words: Annotated[
        dict[str, Literal["NORMAL", "PNEUMONIA"] | None],
        BeforeValidator(_name_keys_as_text),
        Field(
            description="Finding in the table to class; Pneumonia also stands for Pneumonia/Viral. Others are unknown: "
            "their images are left out and counted. null for a finding that is neither class."
        ),
    ] = Field(default={"NORMAL": "NORMAL", "No Finding": "NORMAL", "PNEUMONIA": "PNEUMONIA"})
    path_column: Annotated[
        str | None, Field(description="Column with the path of the image; null: path, Image Index or filename.")
    ] = None
    label_column: Annotated[
        str | None, Field(description="Column with its findings; null: label, Finding Labels or finding.")
    ] = None
    patient_column: Annotated[
        str | None, Field(description="Column with its patient; null: patient, Patient ID or patientid, if there.")
    ] = None
    only: Annotated[
        dict[str, list[str]], Field(description="Column to the values of rows that count, e.g. {view: [PA, AP]}.")
    ] = Field(default={})
    accept_missing: Annotated[
        bool, Field(description="Leave out rows whose image is not there, as for a part of a set, instead of failing.")
    ] = False
    one_class: Annotated[
        bool,
        Field(description="Also judge images of one class: only the sensitivity, or the specificity, is known."),
    ] = False
    slices: Annotated[
        SliceColumns,
        Field(
            description="Columns of the table of labels or of patients.csv, or some of subtype, width, height, size, "
            "brightness and sharpness: figures for the images of each value, or third of the numbers. The report names "
            "columns that are not there."
        ),
    ] = Field(default=[])
    slice_min_patients: SliceMinPatients = 10
    resamples: Annotated[
        int, Field(ge=100, le=100_000, description="Bootstrap replicates over patients for each interval.")
    ] = 2000
    seed: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Seed of the bootstrap, and of the permutations of the distances.")
    ] = 0
    bins: Annotated[int, Field(ge=2, le=100, description="Bins of the calibration error.")] = 15
    mistakes: Annotated[
        int, Field(ge=1, le=12, description="Images of each kind of mistake on the sheet of mistakes.")
    ] = 6
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images per network call.")] = 64
    workers: Annotated[
        int | None, Field(ge=1, description="Threads that read and decode; null: as many as suit the source.")
    ] = None
    max_gigabytes: Annotated[
        float, Field(gt=0, description="Unpacked size above which an archive is refused, in units of 10^9 bytes.")
    ] = 50.0
    endpoint_url: Annotated[
        str | None, Field(description="Address of an object store; by default AWS_ENDPOINT_URL.")
    ] = None
    offline: Annotated[bool, Field(description="Log nothing to MLflow.")] = False

    def run(self) -> None:
        """Open the data, read the labels, predict, measure, write, and log with the version."""
        from cxr.files import scratch_folder

        with scratch_folder() as scratch:
            from cxr.external_validation.data import open_data
            from cxr.external_validation.slices import find_slices
            from cxr.storage.contents import GIGABYTE

            data = open_data(
                self.data, scratch, endpoint_url=self.endpoint_url, max_bytes=int(self.max_gigabytes * GIGABYTE)
            )
            labels = self._read_labels(data)
            known = ", ".join(f"{count:,} {label}" for label, count in labels.counts.items())
            log.info("%s: %s; %s of unknown class", data.images.name, known, f"{sum(labels.unknown.values()):,}")
            if labels.repeated_rows:
                log.info("%s rows repeat an image: each image counts once", f"{labels.repeated_rows:,}")
            slices = find_slices(self.slices, labels, data.table, min_patients=self.slice_min_patients)
            if not self.one_class:
                labels.expect_both_classes()
            self._judge(data, labels, slices)

    def _read_labels(self, data: OutsideData) -> ImageLabels:
        from cxr.data.label_table import LabelReading, labels_of_folders, labels_of_table

        paths = [file.path for file in data.images.files]
        if self.labels is None:
            return labels_of_folders(paths, data.patients)
        return labels_of_table(
            self.labels, paths, LabelReading(**{key: getattr(self, key) for key in LabelReading.__dataclass_fields__})
        )

    def _judge(self, data: OutsideData, labels: ImageLabels, slices: OutsideSlices) -> None:
        from cxr.external_validation.distance import compare_with_training
        from cxr.external_validation.figures import IMAGE, PATIENT, measure_judgement
        from cxr.external_validation.predictions import predict_labelled_images, read_grey
        from cxr.external_validation.report import JudgementContext, write_judgement_folder
        from cxr.inference.scoring.batch import ScoringModel
        from cxr.models.backend import load_keras

        choice = self.choose_model()
        load_keras()
        served = choice.load()
        metadata = served.metadata
        lineage = self._find_lineage(served)
        model = ScoringModel(served.predictor, served.version or None, served.alias or None, served.reference)
        options = self.reading_options(MAX_PIXELS)
        rows = predict_labelled_images(
            data.images, labels.images, model, options=options, workers=self.workers, batch_size=self.batch_size
        )
        rows = slices.assign(rows)
        unit = PATIENT if any(image.patient is not None for image in labels.images) else IMAGE
        judgement = measure_judgement(
            rows, float(metadata.threshold or 0), metadata.prediction_sets, slices,
            unit=unit, resamples=self.resamples, seed=self.seed, bins=self.bins,
        )  # fmt: skip
        comparison = compare_with_training(rows, model, served.validation, self.limits(), seed=self.seed)
        card = data.card if self.data_name == "auto" else data.card.renamed(self.data_name)
        own_test = {} if lineage is None else lineage.test_measures
        context = JudgementContext(
            metadata, model.version, model.alias, card, labels,
            {reason: len(paths) for reason, paths in data.images.left_out.items()}, own_test, unit,
        )  # fmt: skip
        write_judgement_folder(
            self.judgement, judgement, rows, comparison, context,
            mistakes=self.mistakes, read_grey=lambda path: read_grey(data.images, path, options),
        )  # fmt: skip
        for note in judgement.notes:
            log.info("%s", note)
        log.info("%s on %s: %s", choice.name, card.name, judgement.sentence())
        if lineage is not None:
            self._log_to_mlflow(lineage)

    def _find_lineage(self, served: ServedModel) -> Lineage | None:
        """Run, tags and own figures of a registered version; None for a model of a folder."""
        from cxr.tracking.lineage_reader import read_lineage

        return read_lineage(self.store, self.registered_name, served.version) if served.version else None

    def _log_to_mlflow(self, lineage: Lineage) -> None:
        """Log figures and files with the version. If the store does not take them, the folder is still written."""
        from cxr.tracking.judgement_log import log_judgement

        if self.offline:
            return
        try:
            log_judgement(self.store, lineage, self.judgement)
        except RegistryError as error:
            log.warning("the judgement is not in MLflow: %s", error)

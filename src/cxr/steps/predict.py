"""Step: predict, or draw boxes, for image files, for a folder, for a prefix of an object store, or for an archive."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from cxr.errors import MissingInputError, SourceError
from cxr.files import PREDICTIONS_FILE, SUMMARY_FILE
from cxr.images.reading_options import MAX_PIXELS
from cxr.images.shards import WHOLE, Shard
from cxr.steps.base import TRAIN_IMAGE, Input, Output, Positional, Step, WorkingFolder
from cxr.steps.dicomweb_fields import DicomwebStep
from cxr.steps.model_fields import FixedModelStep, RegionsStep
from cxr.steps.reading_fields import ReadingStep
from cxr.steps.report_fields import ReportStep
from cxr.steps.shard_fields import SHARD_DESCRIPTION, ShardedStep, ShardText

if TYPE_CHECKING:
    from cxr.dicom_report.report_files import ReportFiles
    from cxr.inference.scoring.sources import ImageSource
    from cxr.inference.scoring.table import ScoringParts
    from cxr.serving.detector_source import ServedDetector
    from cxr.serving.model_source import ModelSource
    from cxr.serving.served_model import ServedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _ScoringJob:
    """The images, the models and the parts of the table: known before a model is loaded."""

    images: ImageSource
    model: ModelSource[Any]
    parts: ScoringParts[Any]
    detector: ModelSource[ServedDetector] | None = None


class Predict(FixedModelStep, RegionsStep, ReadingStep, DicomwebStep, ReportStep, ShardedStep):
    """Predict for radiographs, or draw boxes around opacities: on the terminal for a few files, or into a file."""

    name: ClassVar[str] = "predict"
    follows: ClassVar[str] = "outcome"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "reading", "predict")
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    cacheable: ClassVar[bool] = False  # the images may have changed
    reads_object_store: ClassVar[bool] = True

    images: Annotated[
        Path | None,
        Input("Dataset", optional=True),
        Field(description="Folder of images, at any depth; s3://bucket/prefix is read as source."),
    ] = None
    predictions: Annotated[
        Path | None,
        Output("Predictions"),
        Field(description=f"Folder to write {PREDICTIONS_FILE} and {SUMMARY_FILE} into."),
    ] = None
    parts: Annotated[
        Path | None,
        WorkingFolder("Predictions so far"),
        Field(description="Folder that keeps rows until all exist; null: a hidden folder beside the result."),
    ] = None

    scored: Annotated[
        Path | None,
        Input("Predictions", optional=True),
        Field(description="Folder with one folder for each shard, whose predictions are joined; null: predict all."),
    ] = None

    files: Annotated[list[str], Positional(variadic=True), Field(description="Image files, named one by one.")] = Field(
        default=[]
    )
    source: Annotated[
        str | None, Field(pattern="^s3://", description="s3://bucket/prefix of images; nothing is written to disk.")
    ] = None
    output: Annotated[
        Path | None, Field(description="File to write, one row per image (or box): NAME.parquet or NAME.csv.")
    ] = None
    regions: Annotated[
        bool,
        Field(description="Draw boxes around opacities: model, version and alias are then those of a detector."),
    ] = False
    endpoint_url: Annotated[
        str | None, Field(description="Address of an object store; by default AWS_ENDPOINT_URL.")
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images per network call.")] = 64
    part_size: Annotated[
        int, Field(ge=1, le=1_000_000, description="Images per part: a killed run repeats at most one part.")
    ] = 512
    workers: Annotated[
        int | None, Field(ge=1, description="Threads that read and decode; null: as many as suit the source.")
    ] = None
    shard: Annotated[
        ShardText | None,
        Field(description=f"{SHARD_DESCRIPTION}; the folder of predictions is then one for scored. null: all images."),
    ] = None

    _job: _ScoringJob | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _move_address_to_source(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        moved = dict(values)
        if str(moved.get("images")).startswith("s3://") and "source" not in moved:
            moved["source"] = str(moved.pop("images"))
        return moved

    @field_validator("files")
    @classmethod
    def _refuse_folders(cls, files: list[str]) -> list[str]:
        if any(name.startswith("s3://") or Path(name).is_dir() for name in files):
            raise ValueError("files; a folder or s3://bucket/prefix is given as --images, with --output")
        return files

    @field_validator("output")
    @classmethod
    def _expect_known_format(cls, output: Path | None) -> Path | None:
        if output is not None and output.suffix not in (".parquet", ".csv"):
            raise ValueError("a file name that ends in .parquet or .csv")
        return output

    @model_validator(mode="after")
    def _expect_one_source_and_one_target(self) -> Self:
        sources = [name for name in ("files", "images", "source", "dicomweb") if getattr(self, name)]
        if len(sources) != 1:
            raise ValueError(
                "expected image files, --images FOLDER, --images s3://bucket/prefix or --dicomweb ADDRESS, received "
                f"{sources or 'none'}"
            )
        targets = [name for name in ("output", "predictions") if getattr(self, name) is not None]
        if len(targets) > 1 or (not targets and not self.files):
            raise ValueError(
                "expected one place for the rows: --output FILE.parquet, --output FILE.csv or --predictions FOLDER, "
                f"received {targets or 'none'}"
            )
        if self.regions and self.report_folders:
            raise ValueError(
                f"expected reports of a classifier, received {' and '.join(self.report_folders)} with regions=true; "
                "leave one of them out"
            )
        if self.regions and self.regions_model is not None:
            raise ValueError(
                f"expected the folder of the detector as model, received regions_model={self.regions_model} with "
                "regions=true; name it as --model"
            )
        if self.regions_model is not None and self.captures is None:
            raise ValueError(
                f"expected captures with regions_model, because nothing else shows boxes beside an answer, received "
                f"regions_model={self.regions_model} without captures; add --captures FOLDER, or draw boxes alone with "
                "--regions true --model FOLDER"
            )
        return self

    @model_validator(mode="after")
    def _expect_a_table_of_shards(self) -> Self:
        divided = {"shards": self.shards > 1, "shard": self.shard is not None, "scored": self.scored is not None}
        used = [name for name, is_used in divided.items() if is_used]
        if len(used) > 1:
            raise ValueError(
                f"expected one of {', '.join(divided)}, received {' and '.join(used)}; leave the others out"
            )
        if used and (self.report_folders or (not self.predictions and not self.output)):
            raise ValueError(
                f"expected a table of predictions without reports, received {used[0]}={getattr(self, used[0])}; name "
                f"--output or --predictions and no reports, or leave {used[0]} out"
            )
        if self.shard is not None and self.predictions is None:
            raise ValueError(f"expected a folder as predictions, received output with shard={self.shard}")
        return self

    def execute(self) -> None:
        """Predict, unless the rows exist already for the same images and version.

        Raises:
            SourceError: if images cannot be listed, or an object store fails.
            RegistryError: if there is no version that can predict.
            MissingInputError: if a folder or a store doesn't exist, or the model of a folder isn't evaluated.
            DataError: if no image gets a prediction.
            ParameterError: if a folder of reports holds other files.
        """
        from cxr.inference.scoring.table import is_complete, update_left_out

        self.refuse_foreign_folders()
        job = self._job = self._prepare()
        target = self._target()
        has_reports = all(folder.is_dir() for folder in self.report_folders.values())
        if target is not None and has_reports and is_complete(job.parts.digest, *target):
            update_left_out(target[1], job.images.left_out_figures)
            log.info("%s already holds the predictions of %s for %s", target[0], job.model.name, job.images.name)
            return
        super().execute()

    def run(self) -> None:
        """Load the model or the detector, predict or draw boxes, print or write the rows."""
        from cxr.models.backend import load_keras
        from cxr.serving.served_model import log_banners

        job = self._job or self._prepare()
        divided = self.model_copy(update={"parts": job.parts.folder})  # shards keep their rows where this step does
        with divided.results_of_shards(self.scored) as scored:
            if scored is not None:
                job.parts.collect(scored)
        load_keras()
        served = job.model.load()
        if self.regions:
            log_banners(served)
            self._draw_boxes(job, served)
        else:
            with self.new_report_folders() as folders:
                self._predict(job, served, folders)
        if self.shard is not None and self.predictions is not None:
            Shard.parse(self.shard).write(self.predictions)
            job.parts.copy_to(self.predictions)

    def step_of_shard(self, shard: Shard, folder: Path) -> Step:
        """Predict for a part of the images."""
        changes = {"shards": 1, "shard": str(shard), "output": None, "predictions": folder}
        return self.build({**self.model_dump(), **changes})

    def _predict(self, job: _ScoringJob, served: ServedModel, folders: Mapping[str, Path]) -> None:
        from cxr.inference.scoring.batch import ScoringModel, score, score_to_table, score_to_text
        from cxr.serving.detector_source import log_capture_banners

        detector = None if job.detector is None else job.detector.load()
        log_capture_banners(served, detector)
        model = ScoringModel(
            served.predictor, served.version or None, served.alias or None, served.reference, served.banner
        )
        target, workers, batch_size = self._target(), self.workers, self.batch_size
        options = self.reading_options(MAX_PIXELS)
        # Where a table is written, reports are kept with its parts until all exist.
        written = folders if target is None else {field: job.parts.side_folder(field) for field in folders}
        files = self._report_files(job, served, detector, written) if folders else None
        if self.shard is not None:
            score(job.images, model, job.parts, options=options, workers=workers, batch_size=batch_size)
        elif target is not None:
            score_to_table(
                job.images, model, job.parts, *target, options=options, workers=workers, batch_size=batch_size,
                answer_files=files,
            )  # fmt: skip
        else:
            for line in score_to_text(
                job.images, model, options=options, workers=workers, batch_size=batch_size, answer_files=files
            ):
                self.show(line)
        if files is not None:
            files.log_counts()
        if target is not None and folders:
            self._collect_reports(job, written, folders)

    def _report_files(
        self, job: _ScoringJob, served: ServedModel, detector: ServedDetector | None, folders: Mapping[str, Path]
    ) -> ReportFiles:
        from cxr.dicom_report.instance import CAPTURE, REPORT
        from cxr.dicom_report.report_files import ReportFiles
        from cxr.serving.report_builders import report_builder

        kinds = {"sr": REPORT, "captures": CAPTURE}
        builder = report_builder(
            served,
            self.registered_name,
            detector,
            self.regions_name,
            kinds=[kinds[field] for field in folders],
            deidentified=self.deidentified,
        )
        return ReportFiles(
            builder,
            {kinds[field]: folder for field, folder in folders.items()},
            left_out=None if self._target() is None else job.parts.side_folder("without_report"),
            options=self.reading_options(MAX_PIXELS),
        )

    def _collect_reports(self, job: _ScoringJob, written: Mapping[str, Path], folders: Mapping[str, Path]) -> None:
        from cxr.dicom_report.report_files import collect_files
        from cxr.inference.scoring.table import image_digests

        for field, folder in folders.items():
            collect_files(written[field], image_digests(job.parts), folder)

    def _draw_boxes(self, job: _ScoringJob, served: ServedDetector) -> None:
        from cxr.regions.scoring import ScoringDetector, boxes_to_table, boxes_to_text, score_boxes

        if served.reference is None:
            log.warning("there is no refusal reference: images that are no chest radiographs are searched, too")
        detector = ScoringDetector(
            served.predictor, served.version or None, served.alias or None, served.reference, served.banner
        )
        target, workers, batch_size = self._target(), self.workers, self.batch_size
        options = self.reading_options(MAX_PIXELS)
        if self.shard is not None:
            score_boxes(job.images, detector, job.parts, options=options, workers=workers, batch_size=batch_size)
        elif target is not None:
            boxes_to_table(
                job.images, detector, job.parts, *target, options=options, workers=workers, batch_size=batch_size
            )
        else:
            for line in boxes_to_text(job.images, detector, options=options, workers=workers, batch_size=batch_size):
                self.show(line)

    def clean_up(self) -> None:
        """Remove the parts once the rows are complete; those of a shard only if no other shard writes there."""
        if self.shard is not None and self.parts is not None:
            return
        if self._job is not None and not self._job.parts.missing():
            self._job.parts.remove()

    def _prepare(self) -> _ScoringJob:
        """List the images and choose the model, without loading it."""
        from cxr.data.image_files import describe_left_out
        from cxr.inference.scoring.sources import NamedImages, ObjectStoreImages, open_folder
        from cxr.inference.scoring.table import TableParts

        images: ImageSource
        if self.dicomweb is not None:
            images = self.find_archived_images()
        elif self.source is not None:
            images = ObjectStoreImages(self.source, endpoint_url=self.endpoint_url)
        elif self.images is not None:
            if not self.images.is_dir():
                raise MissingInputError(
                    f"expected a folder of images, received images={self.images}; check the spelling, or name single "
                    "files without --images"
                )
            images = open_folder(self.images)
        else:
            images = NamedImages(self.files)
        for reason, paths in images.left_out.items():
            log.info("%s: %s", images.name, describe_left_out(reason, paths))
        if not images.files:
            files = sum(map(len, images.left_out.values()))
            raise SourceError(
                f"expected images, received {images.name} with {files:,} other files and no image; name a folder or "
                "prefix that holds JPEG, PNG or DICOM files, at any depth, or studies with CR or DX images"
            )
        result = self.predictions or self.output or Path("predictions")
        folder = self.parts or result.with_name(f".{result.name}.parts")
        shard = WHOLE if self.shard is None else Shard.parse(self.shard)
        options = self.reading_options(MAX_PIXELS).to_text()
        model: ModelSource[Any]
        if self.regions:
            from cxr.regions.scoring import BoxParts

            model = self._choose_detector()
            boxes = BoxParts(folder, images.files, model.identity + options, self.part_size, shard)
            return _ScoringJob(images, model, boxes)
        model = self.choose_model()
        detector = self._choose_capture_detector()
        identity = model.identity + options + self.report_identity + (detector.identity if detector else "")
        return _ScoringJob(images, model, TableParts(folder, images.files, identity, self.part_size, shard), detector)

    def _choose_capture_detector(self) -> ModelSource[ServedDetector] | None:
        from cxr.serving.detector_source import capture_detector_source

        if self.captures is None:
            return None
        return capture_detector_source(self.store, self.choice)

    def _choose_detector(self) -> ModelSource[ServedDetector]:
        from cxr.serving.detector_source import (
            detector_folder_source,
            registered_detector_source,
            use_reference_of_classifier,
        )

        if self.model is not None:
            return detector_folder_source(self.model, self.evaluation, self.reference)
        if self.regions_name is None:
            raise MissingInputError(
                "expected a registered detector or a folder as model with regions=true, received regions_name=null; "
                "name one of them"
            )
        source = registered_detector_source(
            self.store, self.regions_name, version=self.version, alias=self.alias, fallback=self.fallback
        )
        return use_reference_of_classifier(
            source, self.store, self.registered_name, alias=self.alias, fallback=self.fallback
        )

    def _target(self) -> tuple[Path, Path] | None:
        """The table and its summary; None if rows are printed."""
        if self.predictions is not None:
            return self.predictions / PREDICTIONS_FILE, self.predictions / SUMMARY_FILE
        return None if self.output is None else (self.output, self.output.with_name(f".{self.output.name}.json"))

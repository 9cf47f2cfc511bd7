"""Predict: answer for image files, for a folder or for a prefix of a store, with a registered version or a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from cxr.errors import DataError, MissingInputError, SourceError
from cxr.steps.base import Keeps, Positional, Reads, Writes
from cxr.steps.model_fields import AnsweringOnce

if TYPE_CHECKING:
    from cxr.inference.scoring.files import Files
    from cxr.inference.scoring.parts import Parts
    from cxr.inference.scoring.score import Answering
    from cxr.serving.model_source import Choice

log = logging.getLogger(__name__)

TABLE, RECORD = "predictions.parquet", "summary.json"
"""Files in the folder of predictions."""


class Predict(AnsweringOnce):
    """Answer for radiographs: a few files as a table on the terminal, or whole folders and prefixes as a file."""

    name: ClassVar[str] = "predict"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "predict")

    images: Annotated[
        Path | None,
        Reads("Dataset", optional=True),
        Field(description="Folder of images, at any depth; s3://bucket/prefix is taken as source."),
    ] = None
    predictions: Annotated[
        Path | None,
        Writes("Predictions"),
        Field(description=f"Folder to write {TABLE} and {RECORD} into."),
    ] = None
    parts: Annotated[
        Path | None,
        Keeps("Predictions so far"),
        Field(description="Where rows are kept until all are there; null: a hidden folder beside the result."),
    ] = None

    files: Annotated[list[str], Positional(rest=True), Field(description="Image files, named one by one.")] = Field(
        default=[]
    )
    source: Annotated[
        str | None, Field(pattern="^s3://", description="s3://bucket/prefix of images; nothing is written to disk.")
    ] = None
    output: Annotated[Path | None, Field(description="File to write, one row per image: NAME.parquet or NAME.csv.")] = (
        None
    )
    endpoint_url: Annotated[
        str | None, Field(description="Address of an object store; by default AWS_ENDPOINT_URL.")
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images a network call.")] = 64
    part_size: Annotated[
        int, Field(ge=1, le=1_000_000, description="Images a part: what a killed run has to do again, at most.")
    ] = 512
    workers: Annotated[
        int | None, Field(ge=1, description="Threads that read and decode; null for what suits the source.")
    ] = None

    _job: _Job | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _address_of_images(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        moved = dict(values)
        if str(moved.get("images")).startswith("s3://") and "source" not in moved:
            moved["source"] = str(moved.pop("images"))
        return moved

    @field_validator("files")
    @classmethod
    def _no_folders(cls, files: list[str]) -> list[str]:
        if any(name.startswith("s3://") or Path(name).is_dir() for name in files):
            raise ValueError("files; a folder or s3://bucket/prefix is given as --images, with --output")
        return files

    @field_validator("output")
    @classmethod
    def _known_format(cls, output: Path | None) -> Path | None:
        if output is not None and output.suffix not in (".parquet", ".csv"):
            raise ValueError("a file name that ends in .parquet or .csv")
        return output

    @model_validator(mode="after")
    def _one_source_and_one_target(self) -> Self:
        given = [name for name in ("files", "images", "source") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"expected image files, --images FOLDER or --images s3://bucket/prefix, received {given or 'none'}"
            )
        targets = [name for name in ("output", "predictions") if getattr(self, name) is not None]
        if len(targets) > 1 or (not targets and not self.files):
            raise ValueError(
                "expected one place for the rows: --output FILE.parquet, --output FILE.csv or --predictions FOLDER, "
                f"received {targets or 'none'}"
            )
        return self

    def execute(self) -> None:
        """Answer, unless the rows are there already for the same images and version.

        Raises:
            SourceError: if images cannot be listed, or a store stops answering.
            RegistryError: if there is no version that can answer.
            MissingInputError: if a folder or a store isn't there, or the model of a folder isn't evaluated.
            DataError: if there is no answer for any of the images.
        """
        from cxr.inference.scoring.parts import is_written

        job = self._job = self._prepare()
        place = self._place()
        if place is not None and is_written(job.parts.digest, *place):
            log.info("%s already holds the answers of %s for %s", place[0], job.choice.name, job.files.name)
            return
        super().execute()

    def run(self) -> None:
        """Load the model, answer, print or write the rows."""
        from cxr.inference.scoring.score import Answering
        from cxr.models.backend import load_keras

        job = self._job or self._prepare()
        load_keras()
        served = job.choice.load()
        if served.banner:
            log.warning("%s", served.banner)
        answering = Answering(served.predictor, served.version or None, served.alias or None, served.reference)
        place = self._place()
        if place is None:
            self._print(job.files, answering)
        else:
            self._write(job, answering, served.banner, *place)

    def tidy(self) -> None:
        """Remove the parts: the rows are in place."""
        if self._job is not None:
            self._job.parts.remove()

    def _prepare(self) -> _Job:
        """List the images and find out which model is to answer, without loading it."""
        from cxr.inference.scoring.files import FolderFiles, NamedFiles, StoredFiles
        from cxr.inference.scoring.parts import Parts

        files: Files
        if self.source is not None:
            files = StoredFiles(self.source, endpoint_url=self.endpoint_url)
        elif self.images is not None:
            if not self.images.is_dir():
                raise MissingInputError(f"expected a folder of images, received images={self.images}")
            files = FolderFiles(self.images)
        else:
            files = NamedFiles(self.files)
        if not files.entries:
            raise SourceError(f"expected images, received {files.name} without any; check the spelling")
        choice = self.choice()
        result = self.predictions or self.output or Path("predictions")
        parts = self.parts or result.with_name(f".{result.name}.parts")
        return _Job(files, choice, Parts(parts, files.entries, choice.identity, self.part_size))

    def _place(self) -> tuple[Path, Path] | None:
        """Table and its record; None if rows are printed."""
        if self.predictions is not None:
            return self.predictions / TABLE, self.predictions / RECORD
        return None if self.output is None else (self.output, self.output.with_name(f".{self.output.name}.json"))

    def _write(self, job: _Job, answering: Answering, banner: str | None, table: Path, record: Path) -> None:
        from cxr.inference.scoring.parts import write_record
        from cxr.inference.scoring.score import score

        score(job.files, answering, job.parts, workers=self.workers, batch_size=self.batch_size)
        found = job.parts.join(table)
        _expect_answers(found["answered"], found["first_errors"])
        threshold = answering.predictor.card.threshold
        write_record(
            record,
            {**found, "source": job.files.name, **answering.columns, "threshold": threshold, "banner": banner},
        )
        counts = ", ".join(f"{count:,} {label}" for label, count in sorted(found["labels"].items()))
        log.info("%s: %s images, %s", table.name, f"{found['images']:,}", counts)
        if found["errors"]:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found["errors"].items()))
            log.warning("%s without an answer, see column error: %s", f"{sum(found['errors'].values()):,}", kinds)

    def _print(self, files: Files, answering: Answering) -> None:
        from cxr.inference.scoring.rows import rows

        width = max(4, *(len(file.path) for file in files.entries))
        named = (f"{answering.version or '-'} ({answering.alias})" if answering.alias else answering.version) or "-"
        self.show(f"{'file':<{width}}  {'label':<9}  probability  threshold  version")
        errors: list[str] = []
        for row in rows(
            files, files.entries, answering.predictor, answering.reference,
            workers=self.workers, batch_size=self.batch_size,
        ):  # fmt: skip
            if row.probability is None or row.threshold is None:
                errors.append(f"{row.path}: {row.error}")
                self.show(f"{row.path:<{width}}  {'-':<9}  {row.error}")
                continue
            shares = f"{row.probability:>11.1%}  {row.threshold:>9.1%}"
            self.show(f"{row.path:<{width}}  {row.label:<9}  {shares}  {named}")
        _expect_answers(len(files.entries) - len(errors), errors[:5])


@dataclass(frozen=True)
class _Job:
    """What is to be done, found out before anything is loaded."""

    files: Files
    choice: Choice
    parts: Parts


def _expect_answers(answered: int, errors: Sequence[str]) -> None:
    if not answered:
        raise DataError("\n".join(["expected at least one radiograph that can be read, received:", *errors]))

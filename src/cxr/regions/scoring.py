"""Boxes for many images: one row per box, in little memory; a killed run continues where it stopped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cxr.files import printable_name, whole_file, write_json
from cxr.images.reading_options import ReadingOptions
from cxr.inference.reference.reference import Reference
from cxr.inference.scoring.batch import advise_to_repeat, expect_predictions, log_warnings, write_missing_parts
from cxr.inference.scoring.file_reading import read_in_batches
from cxr.inference.scoring.sources import ImageFile, ImageSource
from cxr.inference.scoring.table import FIRST_ERRORS, ScoringParts, error_kind, open_writer, problem_kinds
from cxr.regions.matching import PREDICTION_COLUMNS
from cxr.regions.predictor import RegionPredictor

log = logging.getLogger(__name__)

BOX_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("score", pa.float64()),
        ("version", pa.string()),
        ("alias", pa.string()),
        ("model", pa.string()),
        ("trained_on", pa.string()),
    ]
)
"""Columns of the table: a box in pixels of the original, and the detector that drew it."""
_ERROR, _WARNING, _RANK = "error", "warning", "rank"
"""Columns of the parts only: why a file has no answer, what is unusual about it, and the number of a box, from 0."""


@dataclass(frozen=True, slots=True)
class ScoredBox:
    """A box that a detector draws.

    Attributes:
        x: left edge, pixels of the original.
        y: upper edge.
        width: columns.
        height: rows.
        score: 0 to 1; higher is surer, it is no calibrated probability.
    """

    x: float
    y: float
    width: float
    height: float
    score: float


@dataclass(frozen=True, slots=True)
class ImageBoxes:
    """The boxes of one file, or why it has none.

    Attributes:
        path: name of the file.
        boxes: the boxes, by falling score.
        error: kind of problem or of refusal, and its description; empty for an image that was searched.
        warning: what is unusual about a file that was read; empty if nothing is.
    """

    path: str
    boxes: tuple[ScoredBox, ...] = ()
    error: str = ""
    warning: str = ""


@dataclass(frozen=True)
class ScoringDetector:
    """The detector that draws the boxes, and how the table names it.

    Attributes:
        predictor: the detector with recipe, threshold and box scale.
        version: number in the registry; None for a detector of a folder.
        alias: alias by which the version was found; None if there was none.
        reference: statistics of the training images; None accepts every image.
        banner: notice that people must see beside the boxes; None for none.
    """

    predictor: RegionPredictor
    version: str | None
    alias: str | None
    reference: Reference | None
    banner: str | None

    @property
    def columns(self) -> Mapping[str, str | None]:
        """Columns that are the same in each row."""
        metadata = self.predictor.metadata
        return {
            "version": self.version, "alias": self.alias, "model": metadata.model, "trained_on": metadata.dataset_kind
        }  # fmt: skip


class BoxParts(ScoringParts[ImageBoxes]):
    """Parts of the table of boxes. A file without a box has one row in its part, and none in the table."""

    schema = pa.schema(
        [
            *BOX_SCHEMA,
            pa.field(_ERROR, pa.string(), nullable=False),
            pa.field(_WARNING, pa.string(), nullable=False),
            pa.field(_RANK, pa.int32()),
        ]
    )

    def rows(self, result: ImageBoxes) -> Iterable[Mapping[str, Any]]:
        """Make the rows of one file."""
        common = {"path": result.path, _ERROR: result.error, _WARNING: result.warning}
        return [common | asdict(box) | {_RANK: rank} for rank, box in enumerate(result.boxes)] or [common]

    def first_rows(self, table: pa.Table) -> Sequence[int]:
        """A file has one row without a box, or rows whose boxes are numbered from 0."""
        return [row for row, rank in enumerate(table[_RANK].to_pylist()) if not rank]

    def join(self, target: Path) -> dict[str, Any]:
        """Write the table from all parts, one after the other, whole or not at all.

        Args:
            target: a file whose name ends in ``.parquet`` or ``.csv``.

        Returns:
            Figures for people and for :func:`cxr.inference.scoring.table.is_complete`: ``digest``, ``bytes``,
            ``images``, ``searched`` (images that were neither refused nor broken), ``with_boxes``, ``boxes``,
            ``errors`` and ``warnings`` (kind to number of files), and ``without_answer`` (path and reason of each of
            these files).
        """
        boxes = with_boxes = 0
        without_answer: list[dict[str, str]] = []
        warnings: Counter[str] = Counter()
        with whole_file(target) as partial, open_writer(target.suffix, partial, BOX_SCHEMA) as write:
            for table in self.tables():
                drawn = table.filter(pc.is_valid(table[_RANK]))
                write(drawn.select(BOX_SCHEMA.names))
                boxes += drawn.num_rows
                with_boxes += pc.sum(pc.equal(drawn[_RANK], 0)).as_py() or 0
                first_rows = table.take(self.first_rows(table))
                warnings.update(kind for text in first_rows[_WARNING].to_pylist() for kind in problem_kinds(text))
                broken = table.filter(pc.not_equal(table[_ERROR], ""))
                without_answer += [
                    {"path": path, "reason": error}
                    for path, error in zip(broken["path"].to_pylist(), broken[_ERROR].to_pylist(), strict=True)
                ]
        return {
            "digest": None if self.missing() else self.digest,
            "bytes": target.stat().st_size,
            "images": len(self._files),
            "searched": len(self._files) - len(without_answer),
            "with_boxes": with_boxes,
            "boxes": boxes,
            "errors": dict(Counter(error_kind(file["reason"]) for file in without_answer)),
            "warnings": dict(warnings),
            "without_answer": without_answer,
        }


def draw_boxes(
    predictor: RegionPredictor,
    prepared: Sequence[NDArray[np.uint8]],
    shapes: Sequence[tuple[int, ...]],
    *,
    batch_size: int,
) -> list[tuple[ScoredBox, ...]]:
    """Draw the boxes that count in prepared images.

    Args:
        predictor: the detector.
        prepared: the images as its recipe gives them, ``(size, size, planes)`` uint8.
        shapes: height and width of each original.
        batch_size: images per network call.

    Returns:
        The boxes of each image, by falling score, in pixels of its original.

    Raises:
        MissingInputError: if the detector is not evaluated.
        DataError: if an output of the network is not finite.
    """
    sizes = pd.DataFrame(shapes, columns=["height", "width"]).assign(path=range(len(shapes)))
    table = predictor.predict_prepared(sizes, prepared, batch_size=batch_size)
    boxes: list[list[ScoredBox]] = [[] for _ in prepared]
    for number, *values in table[PREDICTION_COLUMNS].itertuples(index=False, name=None):
        boxes[number].append(ScoredBox(*values))
    return [tuple(sorted(image, key=lambda box: -box.score)) for image in boxes]


def predict_boxes(
    source: ImageSource,
    files: Iterable[ImageFile],
    detector: ScoringDetector,
    *,
    options: ReadingOptions,
    workers: int | None,
    batch_size: int,
    part_sizes: Iterable[int] | None = None,
) -> Iterator[ImageBoxes]:
    """Draw the boxes of files, in their order.

    Args:
        source: where the files are read from.
        files: files of ``source``; they are taken from the iterable when they are needed.
        detector: the detector.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: images per network call.
        part_sizes: as for :func:`cxr.inference.scoring.file_reading.read_in_batches`.

    Yields:
        The boxes of each file.

    Raises:
        SourceError: if the source fails.
        MissingInputError: if the detector is not evaluated.
        DataError: if an output of the network is not finite.
    """
    predictor = detector.predictor
    recipes = (predictor.recipe,)
    batches = read_in_batches(
        source, files, recipes, detector.reference, options=options, workers=workers, batch_size=batch_size,
        part_sizes=part_sizes,
    )  # fmt: skip
    for batch in batches:
        prepared, shapes = [], []
        for file in batch:
            if file.image is not None and file.image.refusal is None:
                prepared.append(file.image.prepared[predictor.recipe])
                shapes.append((file.height or 0, file.width or 0))
        boxes = iter(draw_boxes(predictor, prepared, shapes, batch_size=batch_size))
        for file in batch:
            refusal = file.image.refusal if file.image is not None else None
            if file.image is None or refusal is not None:
                yield ImageBoxes(file.path, error=file.error if refusal is None else str(refusal))
            else:
                yield ImageBoxes(file.path, next(boxes), warning=file.warning)


def score_boxes(
    source: ImageSource,
    detector: ScoringDetector,
    parts: ScoringParts[ImageBoxes],
    *,
    options: ReadingOptions,
    workers: int | None,
    batch_size: int,
) -> None:
    """Draw the boxes of all files that have no final row yet.

    Args:
        source: the images.
        detector: the detector.
        parts: where the boxes are kept; each part is written whole or not at all.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: images per network call.

    Raises:
        SourceError: if the source fails; finished parts are kept, and the next call continues after them.
        MissingInputError: if the detector is not evaluated.
    """

    def predict(files: Iterable[ImageFile], part_sizes: Iterable[int]) -> Iterator[ImageBoxes]:
        return predict_boxes(
            source, files, detector, options=options, workers=workers, batch_size=batch_size, part_sizes=part_sizes
        )

    write_missing_parts(source, parts, predict, detector.columns)


def boxes_to_table(
    source: ImageSource,
    detector: ScoringDetector,
    parts: ScoringParts[ImageBoxes],
    table: Path,
    summary: Path,
    *,
    options: ReadingOptions,
    workers: int | None,
    batch_size: int,
) -> None:
    """Draw the boxes of all files, write the table and its summary, and log what was found.

    Args:
        source: the images.
        detector: the detector.
        parts: where the boxes are kept until all exist; the caller removes them.
        table: file to write; its name ends in ``.parquet`` or ``.csv``.
        summary: JSON file to write: figures of the table, the images without an answer, the files of the source that
            are left out and why, and the detector.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: images per network call.

    Raises:
        DataError: if no image could be searched.
        SourceError: if the source fails; finished parts are kept, and the next call continues after them.
        MissingInputError: if the detector is not evaluated.
    """
    score_boxes(source, detector, parts, options=options, workers=workers, batch_size=batch_size)
    figures = parts.join(table)
    errors = [f"{printable_name(file['path'])}: {file['reason']}" for file in figures["without_answer"]]
    expect_predictions(figures["searched"], errors[:FIRST_ERRORS])
    metadata = detector.predictor.metadata
    write_json(
        summary,
        {
            **figures,
            "left_out": source.left_out_figures,
            "source": source.name,
            **detector.columns,
            "threshold": metadata.threshold,
            "banner": detector.banner,
        },
    )
    summary_line = _summary_line(figures["images"], figures["with_boxes"], figures["boxes"], errors)
    log.info("%s: %s", table.name, summary_line)
    for error in errors[:FIRST_ERRORS]:
        log.warning("no answer for %s", error)
    if len(errors) > FIRST_ERRORS:
        log.warning("%s further images have no answer, see %s", f"{len(errors) - FIRST_ERRORS:,}", summary.name)
    advise_to_repeat(figures["errors"])
    log_warnings(figures["warnings"])


def boxes_to_text(
    source: ImageSource, detector: ScoringDetector, *, options: ReadingOptions, workers: int | None, batch_size: int
) -> Iterator[str]:
    """Draw the boxes of all files as a table for the terminal.

    Args:
        source: the images.
        detector: the detector.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: images per network call.

    Yields:
        A heading, then one line per box and one per file without a box, then how many there were.

    Raises:
        DataError: after the last line, if no image could be searched.
        SourceError: if the source fails.
        MissingInputError: if the detector is not evaluated.
    """
    path_width = max(4, *(len(printable_name(file.path)) for file in source.files))
    yield f"{'file':<{path_width}}  {'x':>7}  {'y':>7}  {'width':>7}  {'height':>7}  score"
    errors: list[str] = []
    boxes = with_boxes = 0
    warnings: Counter[str] = Counter()
    images = predict_boxes(source, source.files, detector, options=options, workers=workers, batch_size=batch_size)
    for image in images:
        warnings.update(problem_kinds(image.warning))
        name = printable_name(image.path)
        if image.error:
            errors.append(f"{name}: {image.error}")
            yield f"{name:<{path_width}}  {'-':>7}  {image.error}"
        elif not image.boxes:
            yield f"{name:<{path_width}}  {'-':>7}  no opacity above the threshold"
        for box in image.boxes:
            edges = "  ".join(f"{value:>7.1f}" for value in (box.x, box.y, box.width, box.height))
            yield f"{name:<{path_width}}  {edges}  {box.score:.3f}"
        boxes, with_boxes = boxes + len(image.boxes), with_boxes + bool(image.boxes)
    yield _summary_line(len(source.files), with_boxes, boxes, errors)
    log_warnings(warnings)
    expect_predictions(len(source.files) - len(errors), errors[:FIRST_ERRORS])


def _summary_line(images: int, with_boxes: int, boxes: int, errors: Sequence[str]) -> str:
    noun = "box" if boxes == 1 else "boxes"
    line = f"{boxes:,} {noun} in {with_boxes:,} of {images:,} {'image' if images == 1 else 'images'}"
    if not errors:
        return line
    kinds = Counter(error_kind(error.partition(": ")[2]) for error in errors)
    return f"{line}; {len(errors):,} without an answer: " + ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(kinds.items())
    )

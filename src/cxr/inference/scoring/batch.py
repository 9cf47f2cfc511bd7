"""Batch scoring: one row per file, in little memory; a broken file becomes a row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cxr.errors import DataError
from cxr.files import printable_name, write_json
from cxr.images.problems import PROBLEMS
from cxr.inference.checked_prediction import PredictionResult, predict_checked
from cxr.inference.scoring.answer_files import AnswerFiles
from cxr.inference.scoring.file_reading import ReadFile, read_in_batches
from cxr.inference.scoring.sources import TRANSFER, ImageFile, ImageSource
from cxr.inference.scoring.table import (
    FIRST_ERRORS,
    PredictionRow,
    ResultT,
    ScoringParts,
    image_digests,
    problem_kinds,
)

if TYPE_CHECKING:
    from cxr.images.reading_options import ReadingOptions
    from cxr.inference.predictor import Predictor
    from cxr.inference.reference.reference import Reference

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoringModel:
    """The model that predicts, and how the table names it.

    Attributes:
        predictor: the network with recipe, calibration and threshold.
        version: number in the registry; None for a model of a folder.
        alias: alias by which the version was found; None if there was none.
        reference: statistics of the training images; None accepts every image.
        banner: notice that people must see beside the predictions; None for none.
    """

    predictor: Predictor
    version: str | None = None
    alias: str | None = None
    reference: Reference | None = None
    banner: str | None = None

    @property
    def columns(self) -> Mapping[str, str | None]:
        """Columns that are the same in each row."""
        return {"version": self.version, "alias": self.alias, "model": self.predictor.metadata.model}


def predict_rows(
    source: ImageSource,
    files: Iterable[ImageFile],
    model: ScoringModel,
    *,
    options: ReadingOptions,
    workers: int | None,
    batch_size: int,
    part_sizes: Iterable[int] | None = None,
    answer_files: AnswerFiles | None = None,
) -> Iterator[PredictionRow]:
    """Predict for files, in their order.

    Args:
        source: where the files are read from.
        files: files of ``source``; they are taken from the iterable when they are needed.
        model: the model.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: images per network call.
        part_sizes: as for :func:`cxr.inference.scoring.file_reading.read_in_batches`.
        answer_files: what else is written about each image; None for nothing.

    Yields:
        One row per file.

    Raises:
        SourceError: if the source fails.
        MissingInputError: if the model isn't calibrated.
    """
    recipes, reference = model.predictor.recipes, model.reference
    if answer_files is not None:
        recipes = tuple(dict.fromkeys((*recipes, *answer_files.recipes)))
    batches = read_in_batches(
        source, files, recipes, reference, options=options, workers=workers, batch_size=batch_size,
        part_sizes=part_sizes, answer_files=answer_files,
    )  # fmt: skip
    for batch in batches:
        yield from _predict_batch(batch, model.predictor, batch_size, answer_files)


def score(
    source: ImageSource,
    model: ScoringModel,
    parts: ScoringParts[PredictionRow],
    *,
    options: ReadingOptions,
    workers: int | None,
    batch_size: int,
    answer_files: AnswerFiles | None = None,
) -> None:
    """Predict for all files that have no final row yet.

    Memory does not grow with the number of files.

    Args:
        source: the images.
        model: the model.
        parts: where the rows are kept; each part is written whole or not at all.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: images per network call.
        answer_files: what else is written about each image; None for nothing.

    Raises:
        SourceError: if the source fails; finished parts are kept, and the next call continues after them.
        MissingInputError: if the model isn't calibrated.
    """

    def predict(files: Iterable[ImageFile], part_sizes: Iterable[int]) -> Iterator[PredictionRow]:
        return predict_rows(
            source, files, model, options=options, workers=workers, batch_size=batch_size, part_sizes=part_sizes,
            answer_files=answer_files,
        )  # fmt: skip

    write_missing_parts(source, parts, predict, model.columns)


def write_missing_parts(
    source: ImageSource,
    parts: ScoringParts[ResultT],
    predict: Callable[[Iterable[ImageFile], Iterable[int]], Iterator[ResultT]],
    columns: Mapping[str, str | None],
) -> None:
    """Predict for all files that have no final row yet, with a progress bar.

    Args:
        source: the images.
        parts: where the results are kept; each part is written whole or not at all.
        predict: files of the source, and how many of them each part has, to one result per file, in their order.
        columns: columns that are the same in each row.

    Raises:
        SourceError: if the source fails; finished parts are kept, and the next call continues after them.
    """
    missing = parts.missing()
    finished = len(source.files) - sum(map(len, missing.values()))
    with tqdm(
        total=len(source.files), initial=finished, unit=" images", desc=f"predict {source.name}", disable=None
    ) as progress:
        results = predict((file for files in missing.values() for file in files), map(len, missing.values()))
        for number, files in missing.items():
            parts.write(number, list(_count(islice(results, len(files)), progress)), columns)


def score_to_table(
    source: ImageSource,
    model: ScoringModel,
    parts: ScoringParts[PredictionRow],
    table: Path,
    summary: Path,
    *,
    options: ReadingOptions,
    workers: int | None,
    batch_size: int,
    answer_files: AnswerFiles | None = None,
) -> None:
    """Predict for all files, and write the table and its summary.

    Args:
        source: the images.
        model: the model.
        parts: where the rows are kept until all exist; the caller removes them.
        table: file to write; its name ends in ``.parquet`` or ``.csv``.
        summary: JSON file to write: figures of the table and of ``answer_files``, its source with the files that are
            left out and why, the model and its threshold.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: images per network call.
        answer_files: what else is written about each image; None for nothing.

    Raises:
        DataError: if no image got a prediction.
        SourceError: if the source fails; finished parts are kept, and the next call continues after them.
        MissingInputError: if the model isn't calibrated.
    """
    score(source, model, parts, options=options, workers=workers, batch_size=batch_size, answer_files=answer_files)
    figures = parts.join(table)
    expect_predictions(figures["answered"], figures["first_errors"])
    write_json(
        summary,
        {
            **figures,
            **({} if answer_files is None else answer_files.figures(image_digests(parts))),
            "left_out": source.left_out_figures,
            "source": source.name,
            **model.columns,
            "threshold": model.predictor.metadata.threshold,
            "banner": model.banner,
        },
    )
    counts = ", ".join(f"{count:,} {label}" for label, count in sorted(figures["labels"].items()))
    log.info("%s: %s images, %s", table.name, f"{figures['images']:,}", counts)
    if errors := figures["errors"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(errors.items()))
        log.warning("%s images without a prediction, see column error: %s", f"{sum(errors.values()):,}", kinds)
    advise_to_repeat(errors)
    log_warnings(figures["warnings"])


def advise_to_repeat(errors: Mapping[str, int]) -> None:
    """Say that a table is not complete because of files that did not arrive whole.

    Args:
        errors: kind of problem to number of files.
    """
    if count := errors.get(TRANSFER):
        log.warning("%s images did not arrive whole: run the same command again, it reads only these", f"{count:,}")


def log_warnings(warnings: Mapping[str, int]) -> None:
    """Say which files were read although they are unusual.

    Args:
        warnings: kind of problem to number of files.
    """
    for kind, count in sorted(warnings.items()):
        log.warning("read although unusual: %s %s, %s", f"{count:,}", kind, PROBLEMS[kind])


def score_to_text(
    source: ImageSource,
    model: ScoringModel,
    *,
    options: ReadingOptions,
    workers: int | None,
    batch_size: int,
    answer_files: AnswerFiles | None = None,
) -> Iterator[str]:
    """Predict for all files as a table for the terminal.

    Args:
        source: the images.
        model: the model.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: images per network call.
        answer_files: what else is written about each image; None for nothing.

    Yields:
        A heading, then one line per file. Before the heading, a line if labels follow a coverage.

    Raises:
        DataError: after the last line, if no image got a prediction.
        SourceError: if the source fails.
        MissingInputError: if the model isn't calibrated.
    """
    width = max(4, *(len(printable_name(file.path)) for file in source.files))
    version = (f"{model.version or '-'} ({model.alias})" if model.alias else model.version) or "-"
    if (sets := model.predictor.metadata.prediction_sets) is not None:
        yield f"Labels follow the coverage of {sets.coverage:g}, not the threshold."
    yield f"{'file':<{width}}  {'label':<9}  probability  threshold  version"
    errors: list[str] = []
    warnings: Counter[str] = Counter()
    rows = predict_rows(
        source, source.files, model, options=options, workers=workers, batch_size=batch_size, answer_files=answer_files
    )
    for row in rows:
        warnings.update(problem_kinds(row.warning))
        name = printable_name(row.path)
        if row.probability is None or row.threshold is None:
            errors.append(f"{name}: {row.error}")
            yield f"{name:<{width}}  {'-':<9}  {row.error}"
        else:
            shares = f"{row.probability:>11.1%}  {row.threshold:>9.1%}"
            yield f"{name:<{width}}  {row.label:<9}  {shares}  {version}"
    log_warnings(warnings)
    expect_predictions(len(source.files) - len(errors), errors[:FIRST_ERRORS])


def _predict_batch(
    batch: Sequence[ReadFile], predictor: Predictor, batch_size: int, answer_files: AnswerFiles | None
) -> Iterator[PredictionRow]:
    results: Iterator[PredictionResult] = iter(
        predict_checked(predictor, [file.image for file in batch if file.image is not None], batch_size)
    )
    for file in batch:
        row = _make_row(file, None if file.image is None else next(results))
        if answer_files is not None:
            answer_files.write(file.examined, file.image, row)
        yield row


def _make_row(file: ReadFile, result: PredictionResult | None) -> PredictionRow:
    row = PredictionRow(
        file.path, error=file.error, warning=file.warning, sha256=file.sha256, width=file.width, height=file.height
    )
    if result is None:
        return row
    prediction = result.prediction
    if prediction is None:
        return replace(row, error=str(result.refusal) if result.refusal else "no_answer")
    if 0 <= prediction.probability <= 1:
        return replace(row, label=prediction.label, probability=prediction.probability, threshold=prediction.threshold)
    return replace(row, error=f"no_answer: the network gave {prediction.probability}")


def _count(results: Iterator[ResultT], progress: tqdm[Any]) -> Iterator[ResultT]:
    for result in results:
        progress.update()
        yield result


def expect_predictions(predicted: int, errors: Sequence[str]) -> None:
    """Stop if no image got a prediction.

    Args:
        predicted: number of images with a prediction.
        errors: the first errors, for the message.

    Raises:
        DataError: if there is no prediction.
    """
    if not predicted:
        raise DataError("\n".join(["expected at least one radiograph that can be read, received:", *errors]))

"""From files to rows: threads read, decode and prepare, the network answers in batches, and a bad file is a row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cxr.errors import ImageError
from cxr.images import decode_grey
from cxr.prepared import in_order
from cxr.recipes import apply
from cxr.scoring.files import File, Files

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cxr.prediction import Prediction, Predictor
    from cxr.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Row:
    """The answer for one file, or why there is none.

    Attributes:
        path: name of the file.
        label: ``"NORMAL"`` or ``"PNEUMONIA"``; None without an answer.
        probability: calibrated probability of pneumonia, 0 to 1; None without an answer.
        threshold: probability at and above which an image is called PNEUMONIA; None without an answer.
        error: kind of problem and its description; empty if there is none.
        sha256: digest of the content; None if it could not be read.
        width: pixels per row; None if it could not be decoded.
        height: rows, likewise.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    threshold: float | None = None
    error: str = ""
    sha256: str | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class _Image:
    """A file after reading: prepared by each recipe, or with an error."""

    path: str
    prepared: Mapping[Recipe, NDArray[np.uint8]] | None = None
    error: str = ""
    sha256: str | None = None
    width: int | None = None
    height: int | None = None


def rows(
    files: Files, wanted: Iterable[File], predictor: Predictor, *, workers: int | None = None, batch_size: int = 64
) -> Iterator[Row]:
    """Answer for files, in their order.

    Args:
        files: where they are read from.
        wanted: entries of ``files``, taken as they are needed.
        predictor: what answers.
        workers: threads; as many as suit the source if ``None``.
        batch_size: images per network call.

    Yields:
        One row per file.

    Raises:
        SourceError: if the source stops answering.
        MissingInputError: if the model isn't calibrated.
    """
    threads = workers or files.workers or os.cpu_count() or 1
    work = partial(_image, files, predictor.recipes)
    # A batch waits prepared while the network answers for the one before.
    images = in_order(work, ((file,) for file in wanted), threads, waiting=max(2 * threads, batch_size))
    while batch := list(islice(images, batch_size)):
        yield from _answered(batch, predictor, batch_size)


def _image(files: Files, recipes: Sequence[Recipe], file: File) -> _Image:
    path = os.fsencode(file.path).decode("utf-8", "backslashreplace")  # names that are no text have surrogates
    sha256 = None
    try:
        data = files.read(file)
        sha256 = hashlib.sha256(data).hexdigest()
        grey = decode_grey(data)
        prepared = {recipe: apply(recipe, grey) for recipe in recipes}
    except ImageError as error:
        return _Image(path, error=str(error), sha256=sha256)
    except cv2.error as error:  # a recipe that cannot cope, with an image of one pixel for example
        return _Image(path, error=f"unsuitable: {error.err}", sha256=sha256)
    height, width = grey.shape
    return _Image(path, prepared, sha256=sha256, width=width, height=height)


def _answered(batch: Sequence[_Image], predictor: Predictor, batch_size: int) -> Iterator[Row]:
    usable = [image.prepared for image in batch if image.prepared is not None]
    answers: Iterator[Prediction] = iter(())
    if usable:
        stacked = {recipe: np.stack([prepared[recipe] for prepared in usable]) for recipe in predictor.recipes}
        answers = iter(predictor.answers(predictor.raw_of(stacked, batch_size)))
    for image in batch:
        row = Row(image.path, error=image.error, sha256=image.sha256, width=image.width, height=image.height)
        if image.prepared is None:
            yield row
            continue
        answer = next(answers)
        if 0 <= answer.probability <= 1:
            yield replace(row, label=answer.label, probability=answer.probability, threshold=answer.threshold)
        else:
            yield replace(row, error=f"no_answer: the network gave {answer.probability}")

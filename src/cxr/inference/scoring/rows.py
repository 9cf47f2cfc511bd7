"""From files to rows: threads read, decode and prepare, the network answers in batches, and a bad file is a row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from cxr.errors import ImageError
from cxr.images.decoding import decode_picture
from cxr.images.prepared import in_order
from cxr.inference.answers import Answer, Seen, conclude, look
from cxr.inference.scoring.files import File, Files

if TYPE_CHECKING:
    from cxr.images.recipes import Recipe
    from cxr.inference.predictor import Predictor
    from cxr.inference.reference.reference import Reference


@dataclass(frozen=True, slots=True)
class Row:
    """The answer for one file, or why there is none.

    Attributes:
        path: name of the file.
        label: ``"NORMAL"`` or ``"PNEUMONIA"``; None without an answer.
        probability: calibrated probability of pneumonia, 0 to 1; None without an answer.
        threshold: probability at and above which an image is called PNEUMONIA; None without an answer.
        error: kind of problem, or of refusal, and its description; empty if there is none.
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
    """A file after reading: looked at, or with an error."""

    path: str
    seen: Seen | None = None
    error: str = ""
    sha256: str | None = None
    width: int | None = None
    height: int | None = None


def rows(
    files: Files,
    wanted: Iterable[File],
    predictor: Predictor,
    reference: Reference | None = None,
    *,
    workers: int | None = None,
    batch_size: int = 64,
) -> Iterator[Row]:
    """Answer for files, in their order.

    Args:
        files: where they are read from.
        wanted: entries of ``files``, taken as they are needed.
        predictor: what answers.
        reference: what its training films look like; None answers for every picture.
        workers: threads; as many as suit the source if ``None``.
        batch_size: images per network call.

    Yields:
        One row per file.

    Raises:
        SourceError: if the source stops answering.
        MissingInputError: if the model isn't calibrated.
    """
    threads = workers or files.workers or os.cpu_count() or 1
    work = partial(_image, files, predictor.recipes, reference)
    # A batch waits prepared while the network answers for the one before.
    images = in_order(work, ((file,) for file in wanted), threads, waiting=max(2 * threads, batch_size))
    while batch := list(islice(images, batch_size)):
        yield from _answered(batch, predictor, batch_size)


def _image(files: Files, recipes: Sequence[Recipe], reference: Reference | None, file: File) -> _Image:
    path = os.fsencode(file.path).decode("utf-8", "backslashreplace")  # names that are no text have surrogates
    sha256 = None
    try:
        data = files.read(file)
        sha256 = hashlib.sha256(data).hexdigest()
        picture = decode_picture(data)
        seen = look(recipes, reference, picture)
    except ImageError as error:
        return _Image(path, error=str(error), sha256=sha256)
    height, width = picture.grey.shape
    return _Image(path, seen, sha256=sha256, width=width, height=height)


def _answered(batch: Sequence[_Image], predictor: Predictor, batch_size: int) -> Iterator[Row]:
    answers: Iterator[Answer] = iter(
        conclude(predictor, [image.seen for image in batch if image.seen is not None], batch_size)
    )
    for image in batch:
        row = Row(image.path, error=image.error, sha256=image.sha256, width=image.width, height=image.height)
        if image.seen is None:
            yield row
            continue
        answer = next(answers)
        if answer.prediction is None:
            refusal = answer.refusal
            yield replace(row, error=f"{refusal.kind}: {refusal.detail}" if refusal else "no_answer")
            continue
        found = answer.prediction
        if 0 <= found.probability <= 1:
            yield replace(row, label=found.label, probability=found.probability, threshold=found.threshold)
        else:
            yield replace(row, error=f"no_answer: the network gave {found.probability}")

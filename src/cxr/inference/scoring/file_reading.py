"""Files of a source, read, checked and prepared by threads while the network predicts; a broken file is an error."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any

from cxr.cpu import available_cores
from cxr.errors import ImageError
from cxr.files import utf8_name
from cxr.images.decoding import decode_image
from cxr.images.parallel import map_in_order
from cxr.images.strict_decoding import describe_warnings
from cxr.inference.checked_prediction import CheckedImage, check_image
from cxr.inference.scoring.answer_files import AnswerFiles
from cxr.inference.scoring.sources import ImageFile, ImageSource

if TYPE_CHECKING:
    from cxr.images.reading_options import ReadingOptions
    from cxr.images.recipes import Recipe
    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.reference.reference import Reference


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file after reading: a checked image, or an error.

    Attributes:
        path: name of the file in tables.
        image: the checked image; None if there is none.
        error: why there is none: kind of problem, and its description; empty if there is an image.
        warning: what is unusual about the file, likewise; empty if nothing is.
        sha256: digest of the content; None if it could not be read.
        width: pixels per row; None if the image could not be decoded.
        height: number of rows; None if the image could not be decoded.
        examined: what :meth:`cxr.inference.scoring.answer_files.AnswerFiles.examine` gave; None if it was not asked.
    """

    path: str
    image: CheckedImage | None = None
    error: str = ""
    warning: str = ""
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    examined: Any = None


def read_in_batches(
    source: ImageSource,
    files: Iterable[ImageFile],
    recipes: Sequence[Recipe],
    reference: Reference | None,
    *,
    options: ReadingOptions,
    workers: int | None,
    batch_size: int,
    part_sizes: Iterable[int] | None = None,
    answer_files: AnswerFiles | None = None,
) -> Iterator[list[ReadFile]]:
    """Read, decode, check and prepare files in threads, one batch ahead of the caller.

    Args:
        source: where the files are read from.
        files: files of ``source``; they are taken from the iterable when they are needed.
        recipes: recipes that prepare each image.
        reference: statistics of the training images; None accepts every image.
        options: what is accepted when a file is read.
        workers: number of threads; None for as many as suit the source.
        batch_size: files per batch.
        part_sizes: number of files in each part, in order. No batch holds files of two parts: the last digits of a
            probability depend on the size of its batch, and shall not depend on which parts are predicted in one go.
            None for one part.
        answer_files: what else is written about each image; None for nothing.

    Yields:
        The next files, in their order.

    Raises:
        SourceError: if the source fails.
    """
    threads = workers or source.workers or available_cores()
    read = partial(_read_file, source, recipes, reference, options, answer_files)
    # One batch is prepared while the network predicts for the batch before it.
    prepared = map_in_order(read, ((file,) for file in files), threads, max_pending=max(2 * threads, batch_size))
    for size in repeat(batch_size) if part_sizes is None else _batch_sizes(batch_size, part_sizes):
        batch = list(islice(prepared, size))
        if not batch:
            return
        yield batch


def _batch_sizes(batch_size: int, part_sizes: Iterable[int]) -> Iterator[int]:
    for part_size in part_sizes:
        for start in range(0, part_size, batch_size):
            yield min(batch_size, part_size - start)


def _read_file(
    source: ImageSource,
    recipes: Sequence[Recipe],
    reference: Reference | None,
    options: ReadingOptions,
    answer_files: AnswerFiles | None,
    file: ImageFile,
) -> ReadFile:
    path = utf8_name(file.path)
    try:
        data = source.read(file)
    except ImageError as error:
        return ReadFile(path, error=utf8_name(str(error)))
    sha256 = hashlib.sha256(data).hexdigest()
    decoded: DecodedImage | None = None
    try:
        decoded = decode_image(data, options)
        height, width = decoded.grey.shape
        warning = describe_warnings(decoded.warnings)
        checked = check_image(recipes, reference, decoded)
        read = ReadFile(path, checked, warning=warning, sha256=sha256, width=width, height=height)
    except ImageError as error:
        read = ReadFile(path, error=utf8_name(str(error)), sha256=sha256)
    return read if answer_files is None else replace(read, examined=answer_files.examine(data, decoded))

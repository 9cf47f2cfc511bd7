"""Scoring many images: one row per file, in little memory, going on after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cxr.inference.scoring.files import File, Files
from cxr.inference.scoring.parts import Parts
from cxr.inference.scoring.rows import Row, rows

if TYPE_CHECKING:
    from cxr.inference.predictor import Predictor
    from cxr.inference.reference.reference import Reference


@dataclass(frozen=True)
class Answering:
    """The model that answers, and how the table names it.

    Attributes:
        predictor: the network with recipe, calibration and threshold.
        version: number in the registry; None for a model of a folder.
        alias: alias that the version was found by; None if there was none.
        reference: what the training films look like; None answers for every picture.
    """

    predictor: Predictor
    version: str | None = None
    alias: str | None = None
    reference: Reference | None = None

    @property
    def columns(self) -> Mapping[str, str | None]:
        """Columns that are the same in each row."""
        return {"version": self.version, "alias": self.alias, "model": self.predictor.card.model}


def score(
    files: Files, answering: Answering, parts: Parts, *, workers: int | None = None, batch_size: int = 64
) -> None:
    """Answer for all files whose part isn't there yet.

    Threads read, decode and prepare while the network answers; memory does not grow with the number of files.

    Args:
        files: what to score.
        answering: the model.
        parts: where the rows are kept; each part is there whole or not at all.
        workers: threads; as many as suit the source if ``None``.
        batch_size: images per network call.

    Raises:
        SourceError: if the source stops answering; whole parts are kept, and the next call goes on from them.
        MissingInputError: if the model isn't calibrated.
    """
    missing = parts.missing()
    waiting: Sequence[Sequence[File]] = [parts.files(number) for number in missing]
    done = len(files.entries) - sum(map(len, waiting))
    bar: tqdm[Any] = tqdm(
        total=len(files.entries), initial=done, unit=" images", desc=f"predict {files.name}", disable=None
    )
    with bar:
        stream = rows(
            files, (file for part in waiting for file in part), answering.predictor, answering.reference,
            workers=workers, batch_size=batch_size,
        )  # fmt: skip
        for number, part in zip(missing, waiting, strict=True):
            parts.write(number, list(_counted(islice(stream, len(part)), bar)), answering.columns)


def _counted(stream: Iterator[Row], bar: tqdm[Any]) -> Iterator[Row]:
    for row in stream:
        bar.update()
        yield row

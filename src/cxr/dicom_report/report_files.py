"""Reports and captures of a batch: one file for each DICOM image, named by the digest of the image's file."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.dicom_report.answer import ReportedAnswer
from cxr.dicom_report.report_builder import CapturedImage, ReportBuilder
from cxr.errors import ImageError
from cxr.files import whole_file
from cxr.images.dicom.reader import is_dicom
from cxr.images.dicom.source_image import SourceImage, describe_source_image
from cxr.inference.scoring.answer_files import AnswerFiles
from cxr.inference.scoring.sources import TRANSFER
from cxr.inference.scoring.table import error_kind

if TYPE_CHECKING:
    from cxr.images.reading_options import ReadingOptions
    from cxr.images.recipes import Recipe
    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import CheckedImage
    from cxr.inference.scoring.table import PredictionRow

log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{64}\.dcm")
_NO_DICOM = "no_dicom"
"""Why a file gets no report: it is JPEG or PNG. Other reasons are keys of :data:`cxr.images.problems.PROBLEMS`."""


@dataclass(frozen=True)
class _Examined:
    """What the files need of an image; ``image`` is None without captures or without a decoded image."""

    source: SourceImage
    image: CapturedImage | None


class ReportFiles(AnswerFiles):
    """Writes a report, and perhaps a capture, for each DICOM image of a batch, also for one that is refused."""

    def __init__(
        self,
        builder: ReportBuilder,
        folders: Mapping[str, Path],
        *,
        left_out: Path | None,
        options: ReadingOptions,
    ) -> None:
        """Choose where files are written.

        Args:
            builder: builds the files.
            folders: kind of file to the folder for files of that kind.
            left_out: folder that keeps why images get no report, for the summary of a table; None keeps nothing.
            options: what is accepted when a file is read.
        """
        self._builder, self._folders = builder, folders
        self._left_out_folder, self._options = left_out, options
        self._written = 0
        self._left_out: Counter[str] = Counter()

    @property
    def recipes(self) -> Sequence[Recipe]:
        """Recipes that prepare an image for what captures show."""
        return self._builder.recipes if self._builder.draws else ()

    def examine(self, data: bytes, image: DecodedImage | None) -> _Examined | str:
        """Read whose image it is.

        Returns:
            What the files need, or the reason why there can be none.
        """
        if not is_dicom(data):
            return _NO_DICOM
        try:
            source = describe_source_image(data, self._options)
        except ImageError as error:
            return error.problem
        return _Examined(source, None if image is None or not self._builder.draws else CapturedImage.of(image))

    def write(self, examined: Any, image: CheckedImage | None, row: PredictionRow) -> None:
        """Write the files about one image, each whole or not at all."""
        if row.sha256 is None:
            self._left_out[TRANSFER] += 1
            return
        if not isinstance(examined, _Examined):
            self._left_out[examined] += 1
            if self._left_out_folder is not None:
                _write(self._left_out_folder / row.sha256, examined.encode())
            return
        reason, _, text = row.error.partition(": ")
        answer = ReportedAnswer(
            self._builder.model,
            datetime.now(UTC),
            row.probability,
            row.threshold,
            row.label,
            error_kind(reason) or None,
            text or None,
        )
        self._written += 1
        for kind, content in self._builder.build(answer, examined.source, examined.image, image).items():
            _write(self._folders[kind] / f"{row.sha256}.dcm", content)

    def figures(self, digests: Iterable[str | None]) -> dict[str, Any]:
        """Count the images of a table without a report, also those of earlier runs.

        Args:
            digests: SHA-256 of the images of the table; None for one that was not read.

        Returns:
            ``without_report``: reason to number of images.
        """
        reasons = Counter(self._reason(digest) for digest in digests)
        return {"without_report": {reason: count for reason, count in sorted(reasons.items()) if reason}}

    def _reason(self, digest: str | None) -> str:
        """Why an image has no report; empty if it has one."""
        if digest is None:
            return TRANSFER
        path = None if self._left_out_folder is None else self._left_out_folder / digest
        return path.read_text(encoding="utf-8") if path is not None and path.is_file() else ""

    def log_counts(self) -> None:
        """Say how many images got a report in this run, and why others got none."""
        log.info("%s DICOM images got a report", f"{self._written:,}")
        if self._left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self._left_out.items()))
            log.warning("%s files got no report: %s", f"{self._left_out.total():,}", reasons)


def collect_files(written: Path, digests: Iterable[str | None], target: Path) -> None:
    """Bring the files of a table's images together.

    Args:
        written: folder that may also hold files of other images.
        digests: SHA-256 of the images of the table; None for one that was not read.
        target: an existing, empty folder.
    """
    for digest in {digest for digest in digests if digest is not None}:
        name = f"{digest}.dcm"
        if (written / name).is_file():
            try:
                os.link(written / name, target / name)
            except OSError:  # another disk, or one without links
                shutil.copyfile(written / name, target / name)


def holds_other_files(folder: Path) -> bool:
    """Tell whether a folder holds anything but reports, so that it must not be replaced.

    Args:
        folder: a path, which need not exist.

    Returns:
        Whether it is a file, or a folder with other names than those of reports.
    """
    if not folder.exists():
        return False
    return not folder.is_dir() or any(_NAME.fullmatch(path.name) is None for path in folder.iterdir())


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)

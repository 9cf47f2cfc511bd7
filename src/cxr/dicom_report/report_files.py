"""Reports and captures of a batch: one file for each DICOM image, named by the digest of the image's file."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxr.dicom_report.answer import ReportedAnswer, ReportedModel
from cxr.dicom_report.picture import PICTURE_SIDE, draw_picture
from cxr.dicom_report.secondary_capture import build_capture
from cxr.dicom_report.structured_report import build_report
from cxr.errors import ImageError
from cxr.files import whole_file
from cxr.images.dicom.reader import is_dicom
from cxr.images.dicom.source_image import SourceImage, describe_source_image
from cxr.images.pixels import shrink
from cxr.inference.explanation import grad_cam_of_prepared
from cxr.inference.scoring.answer_files import AnswerFiles
from cxr.inference.scoring.table import error_kind

if TYPE_CHECKING:
    from cxr.images.reading_options import ReadingOptions
    from cxr.images.strict_decoding import DecodedImage
    from cxr.inference.checked_prediction import CheckedImage
    from cxr.inference.predictor import Predictor
    from cxr.inference.scoring.table import PredictionRow

log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{64}\.dcm")
_NO_DICOM = "no_dicom"
"""Why a file gets no report: it is JPEG or PNG. Other reasons are keys of :data:`cxr.images.problems.PROBLEMS`."""


@dataclass(frozen=True)
class _Examined:
    """What a report needs of an image; ``grey`` is small, and None without captures or without a decoded image."""

    source: SourceImage
    grey: NDArray[np.uint8] | None
    original_width: int


class ReportFiles(AnswerFiles):
    """Writes a report, and perhaps a capture, for each DICOM image of a batch, also for one that is refused."""

    def __init__(
        self,
        model: ReportedModel,
        predictor: Predictor,
        *,
        reports: Path | None,
        captures: Path | None,
        options: ReadingOptions,
        deidentified: bool,
    ) -> None:
        """Choose what is written.

        Args:
            model: the model that answers, as reports name it.
            predictor: the same model, for what counted for it.
            reports: folder of the reports; None writes none.
            captures: folder of the captures; None writes none.
            options: what is accepted when a file is read.
            deidentified: whether attributes of the patient are left out.
        """
        self._model, self._predictor = model, predictor
        self._reports, self._captures = reports, captures
        self._options, self._deidentified = options, deidentified
        self._written = 0
        self._left_out: Counter[str] = Counter()

    def examine(self, data: bytes, image: DecodedImage | None) -> _Examined | str:
        """Read whose image it is.

        Returns:
            What the report needs, or the reason why there can be none.
        """
        if not is_dicom(data):
            return _NO_DICOM
        try:
            source = describe_source_image(data, self._options)
        except ImageError as error:
            return error.problem
        if self._captures is None or image is None:
            return _Examined(source, None, source.columns)
        return _Examined(source, shrink(image.grey, PICTURE_SIDE), image.grey.shape[1])

    def write(self, examined: Any, image: CheckedImage | None, row: PredictionRow) -> None:
        """Write report and capture of one image, each whole or not at all."""
        if not isinstance(examined, _Examined) or row.sha256 is None:
            self._left_out[examined or "transfer"] += 1
            return
        reason, _, text = row.error.partition(": ")
        answer = ReportedAnswer(
            self._model,
            datetime.now(UTC),
            row.probability,
            row.threshold,
            row.label,
            error_kind(reason) or None,
            text or None,
        )
        self._written += 1
        if self._reports is not None:
            report = build_report(answer, examined.source, deidentified=self._deidentified)
            _write(self._reports / f"{row.sha256}.dcm", report)
        if self._captures is not None and examined.grey is not None:
            heat = None
            if image is not None and row.probability is not None:
                heat = grad_cam_of_prepared(
                    self._predictor, image.prepared, examined.grey.shape, average_gradients=False
                )
            pixels = draw_picture(
                examined.grey,
                answer,
                original_width=examined.original_width,
                heat=heat,
                boxes=None,
                phantom_boxes=False,
            )
            capture = build_capture(answer, examined.source, pixels, deidentified=self._deidentified)
            _write(self._captures / f"{row.sha256}.dcm", capture)

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

"""Fields of a step that also writes its answers as DICOM files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from cxr.errors import ParameterError
from cxr.files import whole_folders
from cxr.steps.base import Step


class ReportStep(Step):
    """A step that writes a report, and a picture, for each DICOM image that it answers for."""

    sr: Annotated[
        Path | None,
        Field(description="Folder to write: a DICOM structured report for each DICOM image, named by its digest."),
    ] = None
    captures: Annotated[
        Path | None,
        Field(description="Folder to write: a DICOM picture for each DICOM image, with Grad-CAM, boxes and answer."),
    ] = None
    deidentified: Annotated[
        bool, Field(description="Leave patient, order and times of the study out of reports and pictures; UIDs stay.")
    ] = False

    @model_validator(mode="after")
    def _expect_two_folders(self) -> Self:
        if self.sr is not None and self.sr == self.captures:
            raise ValueError(f"expected two folders, received sr={self.sr} and captures={self.captures}")
        return self

    @property
    def report_folders(self) -> dict[str, Path]:
        """The folders to write, by field."""
        folders = {"sr": self.sr, "captures": self.captures}
        return {field: folder for field, folder in folders.items() if folder is not None}

    @property
    def report_identity(self) -> str:
        """Text that changes whenever other files have to be written; empty if none are."""
        folders = self.report_folders
        return "".join(f" {field}={folder}" for field, folder in folders.items()) + (
            f" deidentified={self.deidentified}" if folders else ""
        )

    def refuse_foreign_folders(self) -> None:
        """Refuse to replace a folder that holds anything but reports.

        Raises:
            ParameterError: for such folders.
        """
        from cxr.dicom_report.report_files import holds_other_files

        problems = [
            f"{self.name}: expected {field} to be a new folder or one with reports alone, received {field}={folder}, "
            "which holds other files; name another folder"
            for field, folder in self.report_folders.items()
            if holds_other_files(folder)
        ]
        if problems:
            raise ParameterError(problems)

    @contextmanager
    def new_report_folders(self) -> Iterator[Mapping[str, Path]]:
        """Replace the folders, whole or not at all.

        Yields:
            Field to an empty folder to write to; it takes the final name when the block ends without an error.
        """
        with whole_folders(self.report_folders) as partial:
            yield partial

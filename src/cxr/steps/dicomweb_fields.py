"""Fields of a step that reads radiographs from an archive by DICOMweb."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from cxr.images.dicom.elements import is_uid
from cxr.steps.base import Step

if TYPE_CHECKING:
    from cxr.inference.scoring.sources import DicomwebImages

_ADDRESS = re.compile(r"https?://[^@?#\s]+")


class DicomwebStep(Step):
    """A step that reads the radiographs of a study, or of all studies since a date, from an archive."""

    dicomweb: Annotated[
        str | None,
        Field(
            description="Root of a DICOMweb service, as https://host/dicom-web; its CR and DX images are read, and "
            "nothing is written to disk. Credentials: CXR_DICOMWEB_USER and CXR_DICOMWEB_PASSWORD, or "
            "CXR_DICOMWEB_TOKEN.",
        ),
    ] = None
    study: Annotated[str | None, Field(description="UID of the study to read with dicomweb.")] = None
    since: Annotated[
        date | None, Field(description="Read all studies since this day with dicomweb, as 2024-01-31.")
    ] = None
    keep_uids: Annotated[
        bool,
        Field(description="Name images of dicomweb by their UIDs, which say whose they are; false: by a digest."),
    ] = False

    @model_validator(mode="after")
    def _expect_one_choice_of_studies(self) -> Self:
        choices = [name for name in ("study", "since") if getattr(self, name) is not None]
        if self.dicomweb is None and choices:
            raise ValueError(f"expected dicomweb with {' and '.join(choices)}, received none; give --dicomweb ADDRESS")
        if self.dicomweb is not None and len(choices) != 1:
            raise ValueError(
                f"expected study or since with dicomweb, received {' and '.join(choices) or 'none'}; give --study UID "
                "or --since DATE"
            )
        if self.dicomweb is not None and not _ADDRESS.fullmatch(self.dicomweb):  # not repeated: it may hold a password
            raise ValueError(
                "expected dicomweb to be an address such as https://host/dicom-web without user, password and query, "
                "received another text; set CXR_DICOMWEB_USER and CXR_DICOMWEB_PASSWORD for credentials"
            )
        if self.study is not None and not is_uid(self.study):
            raise ValueError("expected study to be a UID of at most 64 digits and dots, received another text")
        return self

    def find_archived_images(self) -> DicomwebImages:
        """Find the images of the archive.

        Returns:
            The images, not fetched yet.

        Raises:
            SourceError: if the archive cannot be reached, denies access, or gives no valid answer.
        """
        from cxr.inference.scoring.sources import DicomwebImages

        return DicomwebImages(
            str(self.dicomweb),
            study=self.study,
            since=None if self.since is None else f"{self.since:%Y%m%d}",
            keep_uids=self.keep_uids,
        )

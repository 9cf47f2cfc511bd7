"""Step fetch: bring radiographs into the data folder, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cxr.data.fetching.source import DataSource
from cxr.data.sources.opening import open_source, source_kind
from cxr.data.sources.registry import list_spellings
from cxr.files import remove_leftovers
from cxr.steps.base import DATA_IMAGE, Output, Step, WorkingFolder


class Fetch(Step):
    """Bring radiographs from a source into the data folder; a second call for the same costs nothing."""

    name: ClassVar[str] = "fetch"
    sections: ClassVar[tuple[str, ...]] = ("fetch",)
    container_image: ClassVar[str | None] = DATA_IMAGE
    reads_object_store: ClassVar[bool] = True

    source: str = Field(
        "phantom",
        min_length=1,
        description=f"Where to fetch from: {list_spellings()}, a folder, a tar or a zip file.",
    )
    data_version: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{32}\.dir$",
        description="md5 in data.dvc: fetch exactly this version, from the DVC remote that source names "
        "(s3://bucket/prefix or a folder); null takes the source as it is.",
    )
    expect: Literal["auto", "kermany", "any"] = Field(
        "auto",
        description="Number of images to demand: kermany: the published one; any: none; auto: the published one if the "
        "source seems to be that set.",
    )
    phantom_images: int = Field(600, ge=20, le=100_000, description="Number of phantoms to draw.")
    phantom_seed: int = Field(0, ge=0, description="Seed of the phantoms.")
    data_name: str = Field("auto", min_length=1, description="Name of the data set in reports; auto: from the source.")
    data_kind: Literal["auto", "patients", "phantom"] = Field(
        "auto",
        description="Whether the images show patients or phantoms; auto: from the source's card, else patients.",
    )
    data_licence: str = Field("auto", min_length=1, description="Licence and attribution; auto: from the source.")
    max_gigabytes: float = Field(
        20.0, gt=0, description="Refuse sources that are larger than this after unpacking; not used with data_version."
    )
    labels: Path | None = Field(
        None,
        description="Table in CSV for a source of DICOMweb: StudyInstanceUID, label (NORMAL or PNEUMONIA), patient (a "
        "pseudonym). Credentials: CXR_DICOMWEB_USER and CXR_DICOMWEB_PASSWORD, or CXR_DICOMWEB_TOKEN.",
    )
    index: bool = Field(
        False,
        description="Write an index of the images (name, sha256, size, address) in place of the images. Steps then "
        "read each image where it is. The source must keep its images: s3://bucket/prefix, a DVC remote or a folder.",
    )
    image_store: str | None = Field(
        None,
        pattern=r"^s3://.+",
        description="s3://bucket/prefix to which the images are uploaded by their content before they are indexed; for "
        "sources that do not keep them.",
    )
    endpoint_url: str | None = Field(None, description="Address of an object store; by default AWS_ENDPOINT_URL.")
    refresh: bool = Field(False, description="Fetch again even if the data folder holds what is asked for.")
    data: Annotated[Path, Output("Dataset"), Field(description="Folder of the raw images.")] = Path("data")
    downloads: Annotated[
        Path,
        WorkingFolder("Downloads"),
        Field(description="Partial downloads, from which an interrupted fetch continues."),
    ] = Path("artifacts/downloads")

    @model_validator(mode="after")
    def _check_remote(self) -> Self:
        if self.data_version is not None and not source_kind(self.source).can_hold_versions:
            raise ValueError(
                "expected source to be a DVC remote (s3://bucket/prefix or a folder), received "
                f"source={self.source} with data_version={self.data_version}; name the remote that holds the version"
            )
        return self

    @model_validator(mode="after")
    def _check_index(self) -> Self:
        keeps_images = self.data_version is not None or source_kind(self.source).keeps_images
        if self.index and self.image_store is None and not keeps_images:
            raise ValueError(
                "expected a source whose images can be read later where they are (s3://bucket/prefix, a DVC remote or "
                f"a folder), or image_store, received source={self.source} with index=True; name a place for the "
                "images as image_store=s3://bucket/prefix, or set index to false"
            )
        return self

    def execute(self) -> None:
        """Fetch unless the data folder already holds what is asked for.

        Raises:
            SourceError: if the source fails, or the data folder holds files that fetch did not write.
        """
        from cxr.data.fetching.fetch_record import describe_request, needs_fetch, write_record

        remove_leftovers(self.data.resolve())
        source = self._open_source()
        request = describe_request(source)
        if not needs_fetch(self.data, source, request, refresh=self.refresh):
            return
        # A link to a folder elsewhere stays a link: the folder behind it is replaced.
        self.model_copy(update={"data": self.data.resolve()})._execute_as_step()
        write_record(self.data, self.downloads, request)

    def _execute_as_step(self) -> None:
        super().execute()

    def run(self) -> None:
        """Fill the data folder from the source."""
        self._open_source().fill(self.data)

    def clean_up(self) -> None:
        """Remove partial downloads that are not needed any more."""
        self._open_source().remove_downloads()

    def _open_source(self) -> DataSource:
        from cxr.data.fetching.request import FetchRequest

        return open_source(FetchRequest(**self.model_dump(exclude={"data", "refresh"})))

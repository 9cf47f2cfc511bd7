"""Step fetch: bring radiographs into the data folder, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cxr.steps.base import Keeps, Step, Writes


class Fetch(Step):
    """Bring radiographs from a source into the data folder; a second call for the same costs nothing."""

    name: ClassVar[str] = "fetch"
    sections: ClassVar[tuple[str, ...]] = ("fetch",)

    source: str = Field(
        "phantom",
        min_length=1,
        description="phantom, kaggle, kaggle:owner/name, s3://bucket/prefix, a folder, a tar or a zip file.",
    )
    data_version: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{32}\.dir$",
        description="md5 in data.dvc: exactly this version, from the DVC remote that source names "
        "(s3://bucket/prefix or a folder); null takes source as it is.",
    )
    expect: Literal["auto", "kermany", "any"] = Field(
        "auto",
        description="Images to demand: kermany the published number, any none, auto what the source suggests.",
    )
    phantom_images: int = Field(600, ge=20, le=100_000, description="Number of phantoms to draw.")
    phantom_seed: int = Field(0, ge=0, description="Seed of the phantoms.")
    data_name: str = Field("auto", min_length=1, description="Name of the data set in reports; auto: from the source.")
    data_kind: Literal["auto", "patients", "phantom"] = Field(
        "auto",
        description="Whether people or phantoms are shown; auto: from the source's card, else patients.",
    )
    data_licence: str = Field("auto", min_length=1, description="Licence and attribution; auto: from the source.")
    max_gigabytes: float = Field(
        20.0, gt=0, description="Refuse sources that are larger than this after unpacking; data versions are not."
    )
    endpoint_url: str | None = Field(None, description="Address of an object store; by default AWS_ENDPOINT_URL.")
    refresh: bool = Field(False, description="Fetch again even if the data folder holds what is asked for.")
    data: Annotated[Path, Writes("Dataset"), Field(description="Folder of the raw images.")] = Path("data")
    downloads: Annotated[Path, Keeps("Downloads"), Field(description="Partial downloads, to go on from.")] = Path(
        "artifacts/downloads"
    )

    @model_validator(mode="after")
    def _version_of_a_remote(self) -> Self:
        if self.data_version is not None and self.source.partition(":")[0] in ("phantom", "kaggle"):
            raise ValueError(
                "expected source to be a DVC remote (s3://bucket/prefix or a folder), received "
                f"source={self.source} with data_version={self.data_version}; name the remote that holds the version"
            )
        return self

    def execute(self) -> None:
        """Fetch unless the data folder already holds what is asked for.

        Raises:
            SourceError: if the source fails, or the data folder holds files that fetch did not write.
        """
        from cxr.data.sources import fetch_record

        request = self._request()
        if not fetch_record.is_due(self.data, self.downloads, self.source, request, refresh=self.refresh):
            return
        # A link to a folder elsewhere stays a link: the folder behind it is replaced.
        self.model_copy(update={"data": self.data.resolve()})._fetch()
        fetch_record.remember(self.data, self.downloads, request)

    def _fetch(self) -> None:
        super().execute()

    def run(self) -> None:
        """Draw phantoms, or copy the images of the source."""
        if self.source == "phantom":
            from cxr.data.phantom.dataset import draw_dataset

            draw_dataset(self.data, images=self.phantom_images, seed=self.phantom_seed)
            return
        if self.data_version is not None:
            from cxr.data.sources.data_version import bring_version

            bring_version(
                self.source, self.data_version, self.data, downloads=self.downloads, endpoint_url=self.endpoint_url
            )
            return
        from cxr.data.sources.fetching import Description, bring
        from cxr.storage.contents import GIGABYTE

        bring(
            self.source,
            self.data,
            downloads=self.downloads,
            expect=self.expect,
            description=Description(self.data_name, self.data_kind, self.data_licence),
            max_bytes=int(self.max_gigabytes * GIGABYTE),
            endpoint_url=self.endpoint_url,
        )

    def tidy(self) -> None:
        """Remove what was kept of a data version for going on: it is in place."""
        if self.data_version is not None:
            from cxr.data.sources.data_version import forget

            forget(self.downloads)

    def _request(self) -> dict[str, Any]:
        """Parameters that decide what the data folder holds."""
        from cxr.data.sources.fetch_record import VERSION, identity
        from cxr.data.sources.fetching import label

        if self.data_version is not None:
            return {"source": label(self.source), VERSION: self.data_version}
        without_effect = {"data", "downloads", "refresh", "max_gigabytes", VERSION}
        chosen = self.model_dump(mode="json", exclude=without_effect | _UNUSED.get(self.source, _PHANTOM))
        return {**chosen, "source": label(self.source), "identity": identity(self.source)}


_PHANTOM = {"phantom_images", "phantom_seed"}
_UNUSED = {"phantom": {"expect", "data_name", "data_kind", "data_licence", "endpoint_url"}}

"""The request to ``cxr fetch``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cxr.storage.contents import GIGABYTE

AUTO: Literal["auto"] = "auto"

ExpectedSet = Literal["auto", "kermany", "any"]


@dataclass(frozen=True)
class FetchRequest:
    """The parameters of the step ``fetch``, under the same names.

    Attributes:
        source: address of the source, for example ``"kaggle"``, ``"s3://bucket/prefix"`` or a path.
        data_version: md5 of one version of the data in a DVC remote; None takes the source as it is.
        expect: ``"kermany"`` demands the published number of images, ``"any"`` demands nothing, ``"auto"``
            demands it of sources that seem to be that set (:func:`cxr.data.fetching.kermany.looks_like_kermany`).
        phantom_images: number of phantoms to draw.
        phantom_seed: seed of the phantoms.
        data_name: short name of the data set; ``"auto"`` takes it from the source.
        data_kind: ``"patients"`` or ``"phantom"``; ``"auto"`` takes it from the source's card, else ``"patients"``.
        data_licence: licence with attribution; ``"auto"`` takes it from the source.
        max_gigabytes: size of the unpacked source above which it is refused, in units of 10^9 bytes.
        labels: table of labels and patients, for sources whose images have no class folders; None for others.
        index: whether the data folder gets an index of the images in place of the images.
        image_store: ``s3://bucket/prefix`` to which the images are uploaded before they are indexed; None indexes them
            where they are.
        endpoint_url: address of an object store other than Amazon's.
        downloads: folder of partial downloads, from which an interrupted fetch continues.
    """

    source: str
    data_version: str | None
    expect: ExpectedSet
    phantom_images: int
    phantom_seed: int
    data_name: str
    data_kind: Literal["auto", "patients", "phantom"]
    data_licence: str
    max_gigabytes: float
    labels: Path | None
    index: bool
    image_store: str | None
    endpoint_url: str | None
    downloads: Path

    @property
    def max_bytes(self) -> int:
        """Size above which a source is refused, in bytes."""
        return int(self.max_gigabytes * GIGABYTE)

"""Step: statistics of the training images, so that an image that is not a chest radiograph gets no prediction."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.files import SPLITS_FILE, read_json, write_json
from cxr.steps.base import DATA_IMAGE, Input, Output
from cxr.steps.cache_fields import CachingStep
from cxr.tables import read_table

log = logging.getLogger(__name__)


class DescribeReference(CachingStep):
    """Fit limits on the training images alone; validation and test tell how often the limits refuse wrongly."""

    name: ClassVar[str] = "reference"
    follows: ClassVar[str] = "preprocess"
    sections: ClassVar[tuple[str, ...]] = ("cache", "reference")
    sections_without_effect: ClassVar[tuple[str, ...]] = ("cache",)
    container_image: ClassVar[str | None] = DATA_IMAGE
    reads_images: ClassVar[bool] = True

    data: Annotated[Path, Input("Dataset"), Field(description="Folder of the raw images.")] = Path("data")
    splits: Annotated[Path, Input("Splits"), Field(description="Folder of the split.")] = Path("artifacts/splits")
    reference: Annotated[
        Path, Output("Reference"), Field(description="reference.npz, report.json and distances.png.")
    ] = Path("artifacts/reference")

    films: Annotated[
        int, Field(ge=20, le=20_000, description="Largest number of images of each split that are used.")
    ] = 3000
    components: Annotated[
        int, Field(ge=2, le=512, description="Largest number of main directions of the training images.")
    ] = 64
    false_alarms: Annotated[
        float, Field(gt=0, le=0.02, description="Share of images of the same kind that may be refused.")
    ] = 0.003
    max_coloured: Annotated[float, Field(ge=0, le=1, description="Largest share of coloured pixels.")] = 0.02
    seed: Annotated[int, Field(ge=0, description="Seed of the sample, where a split has more images.")] = 0

    def run(self) -> None:
        """Read the split, fit on train, check validation and test, write."""
        from cxr.data.dataset import DatasetCard
        from cxr.inference.reference.building import build_reference
        from cxr.models.stored_files import record_digests
        from cxr.plots.reference import plot_reference_distances
        from cxr.plots.style import save_png

        card = DatasetCard.read(self.data)
        with self.open_cache() as cache, self.open_images(self.data) as images:
            reference, checks = build_reference(
                images,
                read_table(self.splits / SPLITS_FILE),
                card,
                read_json(self.splits / "achieved.json")["digest"],
                max_images=self.films,
                components=self.components,
                false_alarms=self.false_alarms,
                max_coloured=self.max_coloured,
                seed=self.seed,
                cache=cache,
            )
        reference.save(self.reference)
        write_json(self.reference / "report.json", reference.facts)
        save_png(plot_reference_distances(checks, card), self.reference / "distances.png")
        record_digests(self.reference)
        for split, rates in reference.facts.items():
            if isinstance(rates, dict):
                log.info(
                    "%s: %d of %d images would get no prediction (%.1f %%, 95 %% interval %.1f to %.1f)",
                    split, rates["refused"], rates["films"], *(100 * rates[end] for end in ("share", "low", "high")),
                )  # fmt: skip

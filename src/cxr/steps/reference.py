"""Step: statistics of the training images, so that an image that is not a chest radiograph gets no prediction."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from cxr.files import SPLITS_FILE, read_json, write_json
from cxr.images.shards import Shard
from cxr.steps.base import DATA_IMAGE, Input, Output, Step
from cxr.steps.cache_fields import CachingStep
from cxr.steps.folder_fields import SplitFolder
from cxr.steps.shard_fields import ShardedStep
from cxr.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class DrawingStep(CachingStep):
    """A step that works on a sample of the images of each split."""

    data: Annotated[Path, Input("Dataset"), Field(description="Folder of the raw images.")] = Path("data")
    splits: SplitFolder = Path("artifacts/splits")
    films: Annotated[
        int, Field(ge=20, le=20_000, description="Largest number of images of each split that are used.")
    ] = 3000
    seed: Annotated[int, Field(ge=0, description="Seed of the draw, where a split has more images.")] = 0
    workers: Annotated[int | None, Field(ge=1, description="Threads that read images; null: one per core.")] = None

    def read_splits(self) -> pd.DataFrame:
        """Read what the sample is drawn from."""
        return read_table(self.splits / SPLITS_FILE, columns=("path", "sha256", "split", "group"))


class DescribeReference(ShardedStep, DrawingStep):
    """Fit limits on the training images alone; validation and test tell how often the limits refuse wrongly."""

    name: ClassVar[str] = "reference"
    follows: ClassVar[str] = "preprocess"
    sections: ClassVar[tuple[str, ...]] = ("cache", "processes", "reference")
    sections_without_effect: ClassVar[tuple[str, ...]] = ("cache", "processes")
    container_image: ClassVar[str | None] = DATA_IMAGE
    reads_images: ClassVar[bool] = True

    image_results: Annotated[
        Path | None,
        Input("ImageResults", optional=True),
        Field(
            description="Folder with one folder for each shard that reference_shard wrote; null: describe all images."
        ),
    ] = None
    reference: Annotated[
        Path, Output("Reference"), Field(description="reference.npz, report.json and distances.png.")
    ] = Path("artifacts/reference")

    components: Annotated[
        int, Field(ge=2, le=512, description="Largest number of main directions of the training images.")
    ] = 64
    false_alarms: Annotated[
        float, Field(gt=0, le=0.02, description="Share of images of the same kind that may be refused.")
    ] = 0.003
    max_coloured: Annotated[float, Field(ge=0, le=1, description="Largest share of coloured pixels.")] = 0.02

    def step_of_shard(self, shard: Shard, folder: Path) -> Step:
        """Describe a part of the images."""
        from cxr.steps import load_step

        shared = self.model_dump(include=set(DrawingStep.model_fields))
        threads = self.threads_of_shard(self.workers)
        values = {**shared, "workers": threads, "results": folder, "shard": str(shard)}
        return load_step("reference_shard").build(values)

    def run(self) -> None:
        """Read the split, fit on train, check validation and test, write."""
        from cxr.data.dataset import DatasetCard
        from cxr.inference.reference.building import build_reference
        from cxr.models.stored_files import record_digests
        from cxr.plots.reference import plot_reference_distances
        from cxr.plots.style import save_png

        card = DatasetCard.read(self.data)
        with (
            self.results_of_shards(self.image_results) as shards,
            self.open_cache(shards) as cache,
            self.open_images(self.data) as images,
        ):
            reference, checks = build_reference(
                images,
                self.read_splits(),
                card,
                read_json(self.splits / "achieved.json")["digest"],
                max_images=self.films,
                components=self.components,
                false_alarms=self.false_alarms,
                max_coloured=self.max_coloured,
                seed=self.seed,
                workers=self.workers,
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

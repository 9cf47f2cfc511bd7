"""Step: describe a part of the images for ``reference``, which finds their features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.images.shards import Shard
from cxr.steps.base import DATA_IMAGE, Output
from cxr.steps.reference import DescribeReference, DrawingStep
from cxr.steps.shard_fields import SHARD_DESCRIPTION, ShardText, open_shard_cache


class ReferenceShard(DrawingStep):
    """Describe a part of the images and keep their features, for the step reference."""

    name: ClassVar[str] = "reference_shard"
    follows: ClassVar[str] = "preprocess"
    sections: ClassVar[tuple[str, ...]] = ("cache", "reference")
    sections_without_effect: ClassVar[tuple[str, ...]] = ("cache",)
    ignored_keys: ClassVar[frozenset[str]] = frozenset(DescribeReference.model_fields)
    container_image: ClassVar[str | None] = DATA_IMAGE
    reads_images: ClassVar[bool] = True

    results: Annotated[
        Path, Output("ImageResults"), Field(description="Folder of the features of the images of the shard.")
    ]
    shard: Annotated[ShardText, Field(description=f"{SHARD_DESCRIPTION}.")]

    def run(self) -> None:
        """Describe the images of the shard."""
        from cxr.inference.reference.building import describe_images

        shard = Shard.parse(self.shard)
        with open_shard_cache(self.results, shard, self.cache) as cache, self.open_images(self.data) as images:
            describe_images(
                images, self.read_splits(), shard,
                max_images=self.films, seed=self.seed, workers=self.workers, cache=cache,
            )  # fmt: skip

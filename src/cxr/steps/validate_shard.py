"""Step: look at a part of the images for ``validate``, which finds what was found in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.images.shards import Shard
from cxr.steps.base import TRAIN_IMAGE, Output
from cxr.steps.inspection_fields import InspectionStep
from cxr.steps.shard_fields import SHARD_DESCRIPTION, ShardText, open_shard_cache
from cxr.steps.validate import Validate


class ValidateShard(InspectionStep):
    """Look at a part of the images and keep what was found, for the step validate."""

    name: ClassVar[str] = "validate_shard"
    follows: ClassVar[str] = "fetch"
    sections: ClassVar[tuple[str, ...]] = ("cache", "reading", "validate")
    sections_without_effect: ClassVar[tuple[str, ...]] = ("cache",)
    ignored_keys: ClassVar[frozenset[str]] = Validate.ignored_keys | frozenset(Validate.model_fields)
    container_image: ClassVar[str | None] = TRAIN_IMAGE  # of validate: other libraries would find other results
    reads_images: ClassVar[bool] = True

    results: Annotated[
        Path, Output("ImageResults"), Field(description="Folder of what was found in the images of the shard.")
    ]
    shard: Annotated[ShardText, Field(description=f"{SHARD_DESCRIPTION}.")]

    def run(self) -> None:
        """Look at the images of the shard."""
        from cxr.data.manifest.inspection import ImageInspection, inspect_images

        shard = Shard.parse(self.shard)
        with open_shard_cache(self.results, shard, self.cache) as cache, self.open_images(self.data) as images:
            inspection = ImageInspection(images, self.image_limits, cache)
            inspect_images(inspection, shard.part_of(images.names()), workers=self.workers or None)

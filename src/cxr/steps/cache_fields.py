"""Fields of the steps that work on every image: where results and copies of images are kept between runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cxr.steps.base import Step, WorkingFolder

if TYPE_CHECKING:
    from cxr.images.raw_images import RawImages
    from cxr.images.result_cache import ResultCache


class CachingStep(Step):
    """A step that keeps what it computes of each image; what is kept changes no output."""

    cache: Annotated[
        Path,
        WorkingFolder("ResultCache"),
        Field(description="Results for single images, kept between runs; it can be deleted at any time."),
    ] = Path("artifacts/cache")
    cache_gigabytes: Annotated[
        float,
        Field(ge=0, description="Largest size of that folder; what was not used for longest goes first. 0: keep none."),
    ] = 10.0
    image_cache: Annotated[
        Path,
        WorkingFolder("ImageCache"),
        Field(description="Copies of images that are read by address; it can be deleted at any time."),
    ] = Path("artifacts/image_cache")
    image_cache_gigabytes: Annotated[
        float,
        Field(ge=0, description="Largest size of the copies; what was not used for longest goes first. 0: keep none."),
    ] = 10.0

    def open_cache(self, shards: Path | None = None) -> ResultCache:
        """Open the cache; it is written at the end of the block.

        Args:
            shards: folder with one folder of results for each shard; None if there is none.

        Returns:
            The cache, which also finds the results of the shards.
        """
        from cxr.images.result_cache import ResultCache
        from cxr.lineage.code_version import code_version

        others = [] if shards is None else sorted(shards.iterdir())
        return ResultCache(self.cache, round(self.cache_gigabytes * 1e9), code_version, others)

    def open_images(self, data: Path) -> RawImages:
        """Open the raw images; copies of those read by address are written at the end of the block.

        Args:
            data: the data folder.
        """
        from cxr.data.image_cache import ImageCache
        from cxr.data.image_opening import open_raw_images

        return open_raw_images(data, ImageCache(self.image_cache, round(self.image_cache_gigabytes * 1e9)))

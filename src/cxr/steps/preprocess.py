"""The step ``preprocess``: apply one recipe to every accepted image and store the results in one array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cxr.images.shards import WHOLE, Shard
from cxr.steps.base import DATA_IMAGE, Input, Output, Step
from cxr.steps.cache_fields import CachingStep
from cxr.steps.shard_fields import SHARD_DESCRIPTION, ShardedStep, ShardText
from cxr.tables import read_table

if TYPE_CHECKING:
    from cxr.images.recipes import Recipe


def _check_recipe_name(name: str) -> str:
    from cxr.images.recipes import RECIPES

    if name not in RECIPES:
        raise ValueError(f"one of {', '.join(RECIPES)}")
    return name


class Preprocess(ShardedStep, CachingStep):
    """Apply a recipe to every accepted image: decode to grey, filter, resize, store as uint8.

    Each parameter except the name of the recipe, the workers and the shards replaces one value of the recipe. Null
    keeps the value of the source system.
    """

    name: ClassVar[str] = "preprocess"
    follows: ClassVar[str] = "resplit"
    sections: ClassVar[tuple[str, ...]] = (
        "cache", "processes", "preprocess", "recipes.{recipe}", "transfer_recipes.{recipe}"
    )  # fmt: skip
    sections_without_effect: ClassVar[tuple[str, ...]] = ("cache", "processes", "preprocess")
    container_image: ClassVar[str | None] = DATA_IMAGE
    reads_images: ClassVar[bool] = True

    data: Annotated[Path, Input("Dataset"), Field(description="Folder of the raw images.")] = Path("data")
    manifest: Annotated[
        Path,
        Input("Manifest"),
        Field(description="Folder of the manifest; its accepted images are prepared."),
    ] = Path("artifacts/manifest")
    prepared: Annotated[
        Path,
        Output("Prepared"),
        Field(description="Folder of the array; artifacts/prepared/RECIPE if not given."),
    ] = Path("artifacts/prepared/s2_resize")

    recipe: Annotated[
        str,
        AfterValidator(_check_recipe_name),
        Field(description="Name of the recipe, for example s2_resize; each belongs to one source system."),
    ] = "s2_resize"
    workers: Annotated[
        int | None,
        Field(ge=1, description="Threads; null for one per core. The result does not depend on it."),
    ] = None
    shard: Annotated[
        ShardText | None,
        Field(
            description=f"{SHARD_DESCRIPTION}; a folder with the folders of all shards is read as one. "
            "null: all images."
        ),
    ] = None
    size: Annotated[int | None, Field(ge=8, le=2048, description="Side of the output in pixels.")] = None
    channels: Annotated[int | None, Field(ge=1, le=3, description="Channels of the network's input.")] = None
    fit: Annotated[
        Literal["squash", "pad", "crop"] | None,
        Field(
            description="How an image becomes square: stretched, filled up with black, or cut to its central square."
        ),
    ] = None
    equalise: Annotated[bool | None, Field(description="Equalise the histogram of the whole image.")] = None
    clahe_clip: Annotated[
        float | None,
        Field(ge=0, description="Clip limit of the local (CLAHE) equalisation; 0 omits it."),
    ] = None
    clahe_tiles: Annotated[int | None, Field(ge=1, le=64, description="Tiles per side for CLAHE.")] = None
    bilateral_diameter: Annotated[
        int | None, Field(ge=0, le=64, description="Diameter of the bilateral filter in pixels; 0 omits it.")
    ] = None
    bilateral_sigma_colour: Annotated[
        float | None, Field(gt=0, description="Its sigma in colour, as stated for three equal channels.")
    ] = None
    bilateral_sigma_space: Annotated[float | None, Field(gt=0, description="Its sigma in space, in pixels.")] = None
    morphology: Annotated[
        int | None, Field(ge=0, le=64, description="Side of the kernel of closing, then opening; 0 omits them.")
    ] = None
    canny: Annotated[bool | None, Field(description="Add Canny edges as a second plane.")] = None
    canny_low: Annotated[float | None, Field(ge=0, description="Canny's lower threshold.")] = None
    canny_high: Annotated[float | None, Field(ge=0, description="Canny's upper threshold.")] = None

    @model_validator(mode="before")
    @classmethod
    def _default_output_folder(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        completed = dict(values)
        if "recipe" in completed:
            completed.setdefault("prepared", Path("artifacts/prepared") / str(completed["recipe"]))
        return completed

    @model_validator(mode="after")
    def _expect_one_way_to_divide(self) -> Self:
        if self.shard is not None and self.shards > 1:
            raise ValueError(
                f"expected shard or shards, received shard={self.shard} and shards={self.shards}; leave one out"
            )
        return self

    def chosen_recipe(self) -> Recipe:
        """The recipe with the values of this step in place of those of the source system."""
        from cxr.images.recipes import recipe_named

        others = {"recipe", "workers", "shard", "shards", *CachingStep.parameters()}
        changes = self.model_dump(include=set(self.parameters()) - others)
        return recipe_named(self.recipe, **changes)

    def step_of_shard(self, shard: Shard, folder: Path) -> Step:
        """Prepare a part of the images."""
        threads = self.threads_of_shard(self.workers)
        return self.model_copy(update={"shards": 1, "shard": str(shard), "workers": threads, "prepared": folder})

    def run(self) -> None:
        """Read the manifest, prepare its accepted images, and write array, index and recipe."""
        from cxr.files import MANIFEST_FILE
        from cxr.images.preparation import join_shards, prepare_accepted_images

        if self.shards > 1:
            shards = self.prepared / ".shards"
            self.run_shards(shards)
            join_shards(shards, self.prepared)
            return
        manifest = read_table(self.manifest / MANIFEST_FILE)
        recipe = self.chosen_recipe()
        shard = WHOLE if self.shard is None else Shard.parse(self.shard)
        with self.open_cache() as cache, self.open_images(self.data) as images:
            prepare_accepted_images(
                images, manifest, recipe, self.prepared, workers=self.workers, cache=cache, shard=shard
            )

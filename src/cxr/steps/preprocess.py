"""The step ``preprocess``: apply one recipe to every accepted image and store the results in one array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from cxr.steps.base import DATA_IMAGE, Input, Output
from cxr.steps.cache_fields import CachingStep
from cxr.tables import read_table

if TYPE_CHECKING:
    from cxr.images.recipes import Recipe


def _check_recipe_name(name: str) -> str:
    from cxr.images.recipes import RECIPES

    if name not in RECIPES:
        raise ValueError(f"one of {', '.join(RECIPES)}")
    return name


class Preprocess(CachingStep):
    """Apply a recipe to every accepted image: decode to grey, filter, resize, store as uint8.

    Each parameter except the name of the recipe and the number of workers replaces one value of the recipe. Null keeps
    the value of the source system.
    """

    name: ClassVar[str] = "preprocess"
    follows: ClassVar[str] = "resplit"
    sections: ClassVar[tuple[str, ...]] = ("cache", "preprocess", "recipes.{recipe}", "transfer_recipes.{recipe}")
    sections_without_effect: ClassVar[tuple[str, ...]] = ("cache", "preprocess")
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

    def chosen_recipe(self) -> Recipe:
        """The recipe with the values of this step in place of those of the source system."""
        from cxr.images.recipes import recipe_named

        changes = self.model_dump(include=set(self.parameters()) - {"recipe", "workers", *CachingStep.parameters()})
        return recipe_named(self.recipe, **changes)

    def run(self) -> None:
        """Read the manifest, prepare its accepted images, and write array, index and recipe."""
        from cxr.files import MANIFEST_FILE
        from cxr.images.preparation import prepare_accepted_images

        manifest = read_table(self.manifest / MANIFEST_FILE)
        recipe = self.chosen_recipe()
        with self.open_cache() as cache, self.open_images(self.data) as images:
            prepare_accepted_images(images, manifest, recipe, self.prepared, workers=self.workers, cache=cache)
